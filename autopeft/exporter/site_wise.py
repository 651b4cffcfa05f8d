"""The types of HF peft that hold what each site trains, or what that makes of its module."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from autopeft.core.config import Placement
from autopeft.exporter.exporter import Obstacle, Trained
from autopeft.exporter.translation import (
    Tensors,
    Translation,
    module_path,
    rows,
    scaled,
    values,
)
from autopeft.method import bridge
from autopeft.method.attach import base_of
from autopeft.method.hook import TrainedSite
from autopeft.method.method import Base, Change, Weight
from autopeft.method.registry import Placed
from autopeft.method.sites import Layer, features
from autopeft.model.hub import quiet


class Ia3(Translation):
    """(IA)³: factors of outputs, or of inputs."""

    kind = "ia3"
    methods: ClassVar[frozenset[str]] = frozenset({"ia3"})
    once: ClassVar[frozenset[str]] = methods

    @cached_property
    def _factors(self) -> Mapping[str, tuple[Tensor, bool]]:
        """By path, and whether they are those of the input."""
        factors: dict[str, tuple[Tensor, bool]] = {}
        for site in self.sites:
            assert isinstance(site.part, Change)
            at, enters = module_path(site), site.part.side == "input"
            width = features(site.module)[0 if enters else 1]
            factor, _ = factors.setdefault(at, (torch.ones(width), enters))
            factor[slice(None) if enters else rows(site)] *= 1 + values(site)["change"]
        return factors

    @property
    def modules(self) -> Mapping[str, Tensors]:
        return {
            at: {"ia3_l": factor[None] if enters else factor[:, None]}
            for at, (factor, enters) in self._factors.items()
        }

    @property
    def options(self) -> Mapping[str, Any]:
        entered = sorted(at for at, (_, enters) in self._factors.items() if enters)
        return {"feedforward_modules": entered}


class Lokr(Translation):
    """LoKr, in which HF peft divides whole linears as evenly as we do."""

    kind = "lokr"
    methods: ClassVar[frozenset[str]] = frozenset({"lokr"})
    once: ClassVar[frozenset[str]] = methods
    takes_parts: ClassVar[bool] = False
    takes_any_linear: ClassVar[bool] = False

    @property
    def modules(self) -> Mapping[str, Tensors]:
        return {
            module_path(site): {f"lokr_{name}": tensor for name, tensor in values(site).items()}
            for site in self.sites
        }

    @property
    def options(self) -> Mapping[str, Any]:
        said = {module_path(site): site.placed.method.options for site in self.sites}
        return scaled("alpha", {at: (options.r, options.alpha) for at, options in said.items()})


class Norms(Translation):
    """Norm tuning as the scales and biases themselves, which replace those of the base model."""

    kind = "ln_tuning"
    methods: ClassVar[frozenset[str]] = frozenset({"norm"})

    @property
    def modules(self) -> Mapping[str, Tensors]:
        tuned: dict[str, Base] = {}
        for site in self.sites:
            at = module_path(site)
            tuned[at] = _folded(site, tuned.get(at) or base_of(site))
        return {
            at: {
                f"ln_tuning_layers.{name}": tensor.cpu()
                for name, tensor in (("weight", norm.weight), ("bias", norm.bias))
                if tensor is not None
            }
            for at, norm in tuned.items()
        }


def _folded(site: TrainedSite, base: Base) -> Base:
    """A norm with the change of a site."""
    fold = site.placed.method.fold(site.placed.site, site.tensors, base)
    assert fold.weight is not None
    bias = None if base.bias is None or fold.bias is None else base.bias + fold.bias
    return replace(base, weight=base.weight + fold.weight, bias=bias)


class Bridged(Translation):
    """The layers of HF peft that a method has as its own."""

    methods: ClassVar[frozenset[str]] = frozenset({"peft"})
    once: ClassVar[frozenset[str]] = methods
    takes_parts: ClassVar[bool] = False

    @classmethod
    def obstacles(cls, trained: Trained) -> tuple[Obstacle, ...]:
        first, *others = trained.config.placements
        same = first["peft_type"], bridge.own_of(first)
        reason = "HF peft has one type with one set of options in a folder"
        apart = [p for p in others if (p["peft_type"], bridge.own_of(p)) != same]
        sites = [placed for placed, _ in trained.placed()]
        sharing = {s.placement for s in sites if any(w.trained for w in _shared(s))} & {*others}
        whole = "HF peft shares its tensors between all modules"
        each = (*(Obstacle(p, reason) for p in apart), *(Obstacle(p, whole) for p in sharing))
        return (*each, *super().obstacles(trained))

    @classmethod
    def _lack(cls, placed: Placed, layer: Layer) -> str:
        lack = super()._lack(placed, layer)
        module, placement = layer.linears[placed.site.at].module, placed.placement
        is_odd = isinstance(module, Conv1D) and not lack
        if is_odd and not _takes_conv1d(placement, *features(module)):
            return f"HF peft has no {placement['peft_type']} at Conv1D"
        return lack

    @property
    def kind(self) -> str:
        return str(self.sites[0].placed.placement["peft_type"])

    @property
    def modules(self) -> Mapping[str, Tensors]:
        return {
            module_path(site): {
                weight.name: values(site)[weight.name]
                for weight in site.placed.site.weights
                if weight.trained and not weight.shared
            }
            for site in self.sites
        }

    def tensors(self) -> Tensors:
        common = {
            f"base_model.{weight.name}": values(site)[weight.name]
            for site in self.sites
            for weight in _shared(site.placed)
        }
        return {**super().tensors(), **common}

    @property
    def options(self) -> Mapping[str, Any]:
        return dict(bridge.own_of(self.sites[0].placed.placement))


def _shared(placed: Placed) -> list[Weight]:
    """The tensors that a site has in common with others."""
    return [weight for weight in placed.site.weights if weight.shared]


def _takes_conv1d(placement: Placement, inputs: int, outputs: int) -> bool:
    """Whether HF peft wraps a `Conv1D` in a layer of its own, which not every type does."""
    from peft import inject_adapter_in_model  # takes seconds

    config = bridge.configured(str(placement["peft_type"]), bridge.own_of(placement), ["linear"])
    alone = nn.ModuleDict({"linear": Conv1D(outputs, inputs)})
    try:
        with quiet():
            inject_adapter_in_model(config, alone)
    except (TypeError, ValueError, AttributeError, NotImplementedError, RuntimeError):
        return False
    return True
