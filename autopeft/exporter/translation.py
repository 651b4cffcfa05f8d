"""What a type of HF peft has in place of our methods."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor
from transformers.pytorch_utils import Conv1D

from autopeft.exporter.exporter import Obstacle, Trained, path_of
from autopeft.method import bridge
from autopeft.method.hook import TrainedSite
from autopeft.method.registry import Placed
from autopeft.method.sites import Columns, Layer, LinearSite, features

Tensors = Mapping[str, Tensor]
"""By name, on the CPU."""

IN_MODEL = "base_model.model."
"""What the names in a folder begin with."""


@dataclass(frozen=True)
class Translation(ABC):
    """The trained sites of a configuration in one type of HF peft.

    Attributes:
        methods: those that the type has in one folder.
        once: those of them that it has once at a module.
        takes_parts: whether parts of a fused linear can have tensors of their own.
        takes_any_linear: whether linears may be `Conv1D`, or hold four bits an element.
        sites: all of them.
        uniform: see `HFPeft`.
    """

    methods: ClassVar[frozenset[str]]
    once: ClassVar[frozenset[str]] = frozenset()
    takes_parts: ClassVar[bool] = True
    takes_any_linear: ClassVar[bool] = True

    sites: tuple[TrainedSite, ...]
    uniform: bool | None = None

    @classmethod
    def obstacles(cls, trained: Trained) -> tuple[Obstacle, ...]:
        """What keeps a configuration of these methods from the type."""
        lacking = ((placed, cls._lack(placed, layer)) for placed, layer in trained.placed())
        each = (Obstacle(placed.placement, reason) for placed, reason in lacking if reason)
        return tuple(dict.fromkeys(each))

    @classmethod
    def _lack(cls, placed: Placed, layer: Layer) -> str:
        """Why the type has no such site; empty where it has."""
        linear = layer.linears.get(placed.site.at)
        if linear is not None and linear.columns is not None and not cls.takes_parts:
            return "HF peft takes a fused projection whole"
        if linear is not None and not (cls.takes_any_linear or _is_plain(linear)):
            return "HF peft has it neither at Conv1D nor at linears in four bits"
        again = placed.key.rpartition(".")[2].isdigit()
        if again and placed.placement.method in cls.once:
            return "HF peft has one of it at a module"
        return ""

    @property
    @abstractmethod
    def kind(self) -> str:
        """The name of the type."""

    @property
    @abstractmethod
    def modules(self) -> Mapping[str, Tensors]:
        """Its tensors by path of the module and name."""

    @property
    def options(self) -> Mapping[str, Any]:
        """Those of its configuration that are not the usual ones."""
        return {}

    @property
    def wrapped(self) -> tuple[TrainedSite, ...]:
        """The sites whose modules it wraps."""
        return self.sites

    @property
    def targets(self) -> list[str] | str:
        """The modules that it wraps."""
        return sorted(set(map(module_path, self.wrapped)))

    @property
    def is_transposed(self) -> bool:
        """Whether weights that it wraps lie as (inputs, outputs)."""
        return any(isinstance(site.module, Conv1D) for site in self.wrapped)

    def tensors(self) -> Tensors:
        """All of them under the names of a folder."""
        return {k: v for path, own in self.modules.items() for k, v in named(path, own).items()}

    def config(self, about: Mapping[str, Any]) -> Any:
        """Its configuration with what all types have."""
        return bridge.configured(self.kind, tuple(self.options.items()), self.targets, **about)


def named(path: str, tensors: Tensors) -> Tensors:
    """The tensors of one module under the names of a folder."""
    return {f"{IN_MODEL}{path}.{name}": tensor for name, tensor in tensors.items()}


def module_path(site: TrainedSite) -> str:
    """Of its module inside the model."""
    return path_of(site.layer, site.placed.site.at)


def values(site: TrainedSite) -> Tensors:
    """All tensors of a site."""
    return {name: tensor.detach().cpu() for name, tensor in site.tensors.items()}


def rows(site: TrainedSite) -> Columns:
    """The outputs of the module that are those of the site."""
    return slice(None) if site.columns is None else site.columns


def whole(tensor: Tensor, site: TrainedSite) -> Tensor:
    """A tensor (outputs of the site, ...) for all outputs of its module, others being zero."""
    spread = tensor.new_zeros(features(site.module)[1], *tensor.shape[1:])
    spread[rows(site)] = tensor
    return spread


def scaled(alpha: str, by_path: Mapping[str, tuple[int, float]]) -> dict[str, Any]:
    """The options that say ranks, and alphas under the name `alpha`."""
    ranks = {path: rank for path, (rank, _) in by_path.items()}
    alphas = {path: own for path, (_, own) in by_path.items()}
    return _patterned("r", "rank_pattern", ranks) | _patterned(alpha, "alpha_pattern", alphas)


def _patterned(option: str, pattern: str, by_path: Mapping[str, float]) -> dict[str, Any]:
    """The commonest value of an option, the first of equals, and the exceptions.

    It is 8, HF peft's own default, of none. Each exception is a pattern of exactly one name.
    """
    exact = {path: _plain(value) for path, value in by_path.items()}
    usual = _commonest(exact.values())
    others = {f"^{re.escape(p)}": value for p, value in sorted(exact.items()) if value != usual}
    return {option: usual, pattern: others}


def _commonest(values: Iterable[float]) -> float:
    return (Counter(values).most_common(1) or [(8, 0)])[0][0]


def _plain(value: float) -> float:
    return int(value) if float(value).is_integer() else value


def _is_plain(linear: LinearSite) -> bool:
    """Whether the weight is (outputs, inputs) as it lies in memory."""
    inputs, outputs = features(linear.module)
    shape = tuple(linear.module.get_parameter("weight").shape)
    return shape == (outputs, inputs) and not isinstance(linear.module, Conv1D)
