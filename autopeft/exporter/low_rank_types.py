"""The types of HF peft that are made of products of two narrow matrices."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any, ClassVar

from torch import Tensor
from transformers.pytorch_utils import Conv1D

from autopeft.exporter.low_rank import LowRank, differ, low_rank
from autopeft.exporter.translation import (
    Tensors,
    Translation,
    module_path,
    rows,
    scaled,
    values,
    whole,
)
from autopeft.method.bitfit import BitFitMethod
from autopeft.method.hook import TrainedSite

NO_TARGETS = "dummy-target-modules"
"""HF peft's own mark for a LoRA configuration without LoRA."""


_ByPath = Mapping[str, LowRank]


def _summed(matrices: Iterable[tuple[str, LowRank]]) -> _ByPath:
    """One matrix a module."""
    sums: dict[str, LowRank] = {}
    for at, matrix in matrices:
        sums[at] = sums[at].plus(matrix) if at in sums else matrix
    return sums


def _padded(matrices: _ByPath) -> _ByPath:
    """The same matrices with one rank and a scaling of 1."""
    most = max((matrix.rank for matrix in matrices.values()), default=0)
    return {at: matrix.padded(most) for at, matrix in matrices.items()}


def _scaled(alpha: str, matrices: _ByPath) -> dict[str, Any]:
    return scaled(alpha, {at: (matrix.rank, matrix.alpha) for at, matrix in matrices.items()})


class Lora(Translation):
    """LoRA with one rank and one alpha, see `HFPeft`, and BitFit as the biases themselves."""

    kind = "lora"
    methods: ClassVar[frozenset[str]] = frozenset({"lora", "moslora", "bitfit"})

    @property
    def wrapped(self) -> tuple[TrainedSite, ...]:
        return tuple(s for s in self.sites if not isinstance(s.placed.method, BitFitMethod))

    @cached_property
    def _matrices(self) -> _ByPath:
        matrices = _summed((module_path(site), _of_module(site)) for site in self.wrapped)
        pads = differ(matrices.values()) if self.uniform is None else self.uniform
        return _padded(matrices) if pads else matrices

    @cached_property
    def _biases(self) -> Tensors:
        """The trained biases themselves by path of their modules, in float32."""
        biases: dict[str, Tensor] = {}
        for site in self.sites:
            if isinstance(site.placed.method, BitFitMethod):
                if module_path(site) not in biases:
                    start = site.module.get_parameter("bias").detach()
                    biases[module_path(site)] = start.cpu().float().clone()
                biases[module_path(site)][rows(site)] += values(site)["bias"]
        return biases

    @property
    def modules(self) -> Mapping[str, Tensors]:
        modules: dict[str, dict[str, Tensor]] = {
            at: {"lora_A.weight": matrix.a, "lora_B.weight": matrix.b}
            for at, matrix in self._matrices.items()
        }
        for at, bias in self._biases.items():
            modules.setdefault(at, {})["base_layer.bias" if at in self._matrices else "bias"] = bias
        return modules

    @property
    def targets(self) -> list[str] | str:
        return super().targets or NO_TARGETS

    @property
    def options(self) -> Mapping[str, Any]:
        branches = [site.placed.method.options for site in self.wrapped]
        return {
            **_scaled("lora_alpha", self._matrices),
            "lora_dropout": max((options.lora_dropout for options in branches), default=0.0),
            "fan_in_fan_out": self.is_transposed,
            "bias": "all" if self._biases else "none",
        }


class Dora(Lora):
    """DoRA: LoRA with lengths of rows."""

    methods: ClassVar[frozenset[str]] = frozenset({"dora", "bitfit"})
    once: ClassVar[frozenset[str]] = frozenset({"dora"})

    @property
    def modules(self) -> Mapping[str, Tensors]:
        lengths: dict[str, Tensor] = {}
        for site in self.wrapped:
            if module_path(site) not in lengths:
                weight = site.module.get_parameter("weight").detach().cpu().float()
                each_row = weight.T if isinstance(site.module, Conv1D) else weight
                lengths[module_path(site)] = each_row.norm(dim=1)
            lengths[module_path(site)][rows(site)] *= 1 + values(site)["m_change"]
        vectors = {at: {"lora_magnitude_vector": length} for at, length in lengths.items()}
        return {at: {**own, **vectors.get(at, {})} for at, own in super().modules.items()}

    @property
    def options(self) -> Mapping[str, Any]:
        return {**super().options, "use_dora": True}


def _of_module(site: TrainedSite) -> LowRank:
    """The matrix of a site, as high as its module."""
    matrix = low_rank(site)
    a, b = matrix.a.cpu().float(), whole(matrix.b.cpu().float(), site)
    return LowRank(a, b, matrix.scaling)


class Hira(Translation):
    """HiRA with one rank, as HF peft 0.21 reads no patterns of it."""

    kind = "hira"
    methods: ClassVar[frozenset[str]] = frozenset({"hira"})

    @cached_property
    def _matrices(self) -> _ByPath:
        matrices = []
        for site in self.sites:
            tensors = values(site)
            matrix = LowRank(tensors["A"], whole(tensors["B"], site))
            matrices.append((module_path(site), matrix))
        return _padded(_summed(matrices))

    @property
    def modules(self) -> Mapping[str, Tensors]:
        return {at: {"hira_A": m.a, "hira_B": m.b} for at, m in self._matrices.items()}

    @property
    def options(self) -> Mapping[str, Any]:
        rank = next(iter(self._matrices.values())).rank
        dropout = max(site.placed.method.options.hira_dropout for site in self.sites)
        return {"r": rank, "hira_dropout": dropout, "fan_in_fan_out": self.is_transposed}


class Loha(Translation):
    """LoHa, whose products have ranks of their own for each part of a fused linear."""

    kind = "loha"
    methods: ClassVar[frozenset[str]] = frozenset({"loha"})
    once: ClassVar[frozenset[str]] = methods
    takes_any_linear: ClassVar[bool] = False

    def _factor(self, name: str) -> _ByPath:
        """The factor `w1` of the elementwise product, which has the scaling, or `w2`."""
        matrices = []
        for site in self.sites:
            tensors, options = values(site), site.placed.method.options
            tall, wide = whole(tensors[f"{name}_a"], site), tensors[f"{name}_b"]
            scaling = options.alpha / options.r if name == "w1" else 1.0
            matrices.append((module_path(site), LowRank(wide, tall, scaling)))
        return _summed(matrices)

    @cached_property
    def _factors(self) -> Mapping[str, _ByPath]:
        return {name: self._factor(name) for name in ("w1", "w2")}

    @property
    def modules(self) -> Mapping[str, Tensors]:
        modules: dict[str, dict[str, Tensor]] = {}
        for name, matrices in self._factors.items():
            for at, matrix in matrices.items():
                own = {f"hada_{name}_a": matrix.b, f"hada_{name}_b": matrix.a}
                modules.setdefault(at, {}).update(own)
        return modules

    @property
    def options(self) -> Mapping[str, Any]:
        return _scaled("alpha", self._factors["w1"])
