"""What a PEFT method is: where it sits, which tensors it trains, what it does to a forward pass."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, Literal, TypeVar

from torch import Tensor

from autopeft.core.methods import Declaration
from autopeft.core.shape import LayerShape


@dataclass(frozen=True)
class Weight:
    """One trained tensor: its name at its site, its shape, and how it is drawn.

    Attributes:
        draw: `zeros`, `uniform` on [-scale, scale], or `normal` with standard deviation `scale`.
    """

    name: str
    shape: tuple[int, ...]
    draw: Literal["zeros", "uniform", "normal"] = "zeros"
    scale: float = 0.0

    @property
    def elements(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Site:
    """One place of a layer where a method sits.

    Attributes:
        name: of the site, the middle of its tensors' names.
        at: role of a linear or name of a norm, on whose device the tensors live.
        weights: the trained tensors.
        changes: elements that merging changes, by name of the backbone's tensor within the layer.
    """

    name: str
    at: str
    weights: tuple[Weight, ...]
    changes: Mapping[str, int] = field(default_factory=dict)

    @property
    def elements(self) -> int:
        """The number of trained elements."""
        return sum(weight.elements for weight in self.weights)


Weights = Mapping[str, Tensor]
"""The tensors of one site by `Weight.name`."""


@dataclass(frozen=True)
class Branch:
    """Adds `change(source, training)` to the output of the linear or norm `at`.

    Attributes:
        source: `input` or `output` of `at`, or the role of another linear, run before, whose input
            is meant.
        change: maps (..., width of source) to (..., outputs of `at`).
    """

    at: str
    source: str
    change: Callable[[Tensor, bool], Tensor]


@dataclass(frozen=True)
class Offset:
    """Adds `vector`, of shape (outputs of `at`,), to the output of the linear or norm `at`."""

    at: str
    vector: Tensor


@dataclass(frozen=True)
class Context:
    """Puts `key` and `value`, (positions, width), before those of an attention.

    Attributes:
        attention: `self` or `cross`.
    """

    attention: str
    key: Tensor
    value: Tensor


Part = Branch | Offset | Context


@dataclass(frozen=True)
class Fold:
    """The change that a site makes to its linear or norm: weight (outputs, inputs) or bias."""

    weight: Tensor | None = None
    bias: Tensor | None = None


Declared = TypeVar("Declared", bound=Declaration)


@dataclass(frozen=True)
class Method(ABC, Generic[Declared]):
    """The mathematics of a PEFT method for one set of options.

    It reads a layer's shape and returns values. `attach` alone applies them to a backbone.

    Attributes:
        options: closed, see `Declaration.closed`; nothing here checks them again.
        identity_at_start: freshly drawn tensors leave the backbone's output as it is.
        merges: `fold` expresses the trained tensors as a change of the backbone's own.
        in_attention: parts are contexts, which not every architecture takes.
        example: a small, complete set of options.
    """

    options: Declared

    identity_at_start: ClassVar[bool] = True
    merges: ClassVar[bool] = False
    in_attention: ClassVar[bool] = False
    example: ClassVar[Mapping[str, Any]]

    @abstractmethod
    def looks_for(self) -> str:
        """What the method looks for in a layer, as the object of the sentence "... has no"."""

    @abstractmethod
    def sites(self, layer: LayerShape) -> tuple[Site, ...]:
        """The sites of the method in one layer; none where the layer lacks what it `looks_for`."""

    @abstractmethod
    def part(self, site: Site, weights: Weights) -> Part:
        """What the tensors of one site do to the forward pass."""

    def fold(self, site: Site, weights: Weights) -> Fold:
        """The tensors of one site as a change of the backbone, where the method `merges`."""
        raise NotImplementedError(f"{type(self).__name__} does not merge at {site.name}")
