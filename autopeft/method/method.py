"""What a PEFT method is: where it sits, which tensors it trains, what it does to a forward pass."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, Literal, TypeVar

import torch
from torch import Generator, Tensor

from autopeft.core.declaration import Declaration
from autopeft.core.shape import LayerShape
from autopeft.method.evidence import Evidence

FromBase = Callable[[Tensor, Generator], Tensor]
"""Makes a tensor from the float32 base weight of its site, (outputs, inputs), or at random.

Where the method `restores`, from what the quantization of that weight took.
"""


@dataclass(frozen=True)
class FromData:
    """How training examples make the first rows of a tensor.

    Attributes:
        evidence: begins a statistic of the linear of a site.
        n_examples: how many examples it takes in, or all where there are fewer.
    """

    evidence: Callable[[], Evidence]
    n_examples: int


@dataclass(frozen=True)
class Weight:
    """One tensor: its name at its site, its shape, and how it is made.

    Attributes:
        draw: `zeros`, `constant` with the value `scale`, `uniform` on [-scale, scale], `normal`
            with standard deviation `scale`, or what makes it from the base weight.
        trained: a tensor that is not is made alike for every seed, and kept nowhere, unless it
            starts from data.
        shared: tensors of a name are one wherever this is the same, in all placements of the
            backbone or, where they are trained, in one; empty is nowhere.
        rate: how many times the learning rate of the placement it has.
        dtype: integers of places, or the usual.
        from_data: what makes its first rows from training examples, over what is drawn; None
            leaves it at that.
    """

    name: str
    shape: tuple[int, ...]
    draw: Literal["zeros", "constant", "uniform", "normal"] | FromBase = "zeros"
    scale: float = 0.0
    trained: bool = True
    shared: str = ""
    rate: float = 1.0
    dtype: torch.dtype = torch.float32
    from_data: FromData | None = None

    @property
    def elements(self) -> int:
        """The number of trained elements."""
        return math.prod(self.shape) if self.trained else 0

    @property
    def is_kept(self) -> bool:
        """Whether it belongs to the state of a training, as what cannot be drawn again."""
        return self.trained or self.from_data is not None

    @property
    def stored(self) -> int:
        """The number of elements that belong to that state."""
        return math.prod(self.shape) if self.is_kept else 0

    @property
    def common(self) -> str:
        """The name of a tensor that sites share; empty for any other."""
        return f"{self.shared}.{self.name}" if self.shared else ""


@dataclass(frozen=True)
class Site:
    """One place of a layer where a method sits.

    Attributes:
        name: of the site, the middle of its tensors' names.
        at: role of a linear or name of a norm, on whose device the tensors live.
        weights: its tensors.
        changes: elements that merging changes, by name of the backbone's tensor within the layer.
        shape: (outputs, inputs) of the map from what it reads to what it adds, where that is one.
    """

    name: str
    at: str
    weights: tuple[Weight, ...]
    changes: Mapping[str, int] = field(default_factory=dict)
    shape: tuple[int, int] = (0, 0)


Weights = Mapping[str, Tensor]
"""The tensors of one site by `Weight.name`."""


INPUT, OUTPUT, RAW, WEIGHT, BIAS = "input", "output", "raw", "weight", "bias"
"""What a `Change` reads of the module that it is at."""

AVERAGE, SEEN = OF_TEXT = "average", "seen"
"""What a `Change` reads of the text.

What each position counts in a mean over it, (rows, positions, 1), and which positions each may know
of, (rows, 1, positions or 1, positions), of bool.
"""


@dataclass(frozen=True)
class Change:
    """Adds `change(*read, training)` to what leaves the linear or norm `at`, or enters it.

    Attributes:
        change: gives (..., outputs or inputs of `at`), or of nothing read a vector.
        reads: of `at` the `input`, the `output` with all earlier changes, the `raw` output of the
            frozen module, its `weight` (outputs, inputs) or `bias` (outputs,), zero where it has
            none; the `average` of a text or what is `seen` of it; or the role of another linear
            that runs before, whose input is meant.
        side: `output`, or `input`, where `at` has it to itself; all that read that see it changed.
    """

    at: str
    change: Callable[..., Tensor]
    reads: tuple[str, ...] = (INPUT,)
    side: Literal["output", "input"] = "output"

    @property
    def is_ordered(self) -> bool:
        """Whether it sees what changes before it have made."""
        return self.side == INPUT or OUTPUT in self.reads

    @property
    def averages(self) -> bool:
        """Whether it takes a mean over the text."""
        return AVERAGE in self.reads

    @property
    def reads_text(self) -> bool:
        """Whether it needs all positions at once."""
        return not set(OF_TEXT).isdisjoint(self.reads)


@dataclass(frozen=True)
class Context:
    """Puts keys and values before those of an attention.

    Attributes:
        attention: `self` or `cross`.
        length: positions.
        read: gives keys and values, (positions, width).
        gate: by what both are multiplied, (rows, length or 1, 1), of what enters the attention,
            (rows, positions, width), and the `average` of the text; None for one.
    """

    attention: str
    length: int
    read: Callable[[], tuple[Tensor, Tensor]]
    gate: Callable[[Tensor, Tensor], Tensor] | None = None

    @property
    def averages(self) -> bool:
        """Whether it takes a mean over the text."""
        return self.gate is not None

    @property
    def reads_text(self) -> bool:
        """Whether it needs all positions at once."""
        return self.averages


@dataclass(frozen=True)
class Insert:
    """Lets a layer run on more positions, which stand before those of the text.

    Attributes:
        length: positions.
        read: gives the hidden states that enter there, (positions, width).
        moves: they enter only where the layer before has none of the placement; any other layer
            takes what that one makes of them.
    """

    averages: ClassVar[bool] = False
    reads_text: ClassVar[bool] = False
    length: int
    read: Callable[[], Tensor]
    moves: bool


@dataclass(frozen=True)
class Beside:
    """Runs a network along the layers, which is fed by what leaves them and feeds nothing there.

    Attributes:
        step: of the hidden states (rows, positions, width), of what the network has made below,
            (rows, positions, size), None below its lowest layer, and of the positions that each
            may know of, (rows, 1, positions or 1, positions), what it makes here.
        end: gives what is added to the hidden states above its highest layer.
    """

    averages: ClassVar[bool] = False
    reads_text: ClassVar[bool] = True
    step: Callable[[Tensor, Tensor | None, Tensor], Tensor]
    end: Callable[[Tensor], Tensor]


Part = Change | Context | Insert | Beside


@dataclass(frozen=True)
class Base:
    """The linear or norm of a site as it is before a fold.

    Attributes:
        weight: (outputs, inputs) of a linear, (width,) of a norm, in float32 or better.
        bias: (outputs,), where there is one.
        shift: what a norm adds to its weight: 1 where it keeps the difference from that.
    """

    weight: Tensor
    bias: Tensor | None = None
    shift: float = 0.0

    @property
    def scale(self) -> Tensor:
        """By what a norm multiplies, (width,)."""
        return self.weight + self.shift


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
        in_attention: parts reach into attentions, which not every architecture lets them.
        in_cache: what is cached of a text says all that its parts need of it.
        nests: its tensors of a smaller size are the first rows and columns of those of a larger.
        goes_along: what a part makes on a layer is that of the next one, too.
        lengthens: layers run on more positions, which not every architecture lets them.
        example: a small, complete set of options.
    """

    options: Declared

    identity_at_start: ClassVar[bool] = True
    merges: ClassVar[bool] = False
    in_attention: ClassVar[bool] = False
    in_cache: ClassVar[bool] = True
    lengthens: ClassVar[bool] = False
    nests: ClassVar[bool] = False
    goes_along: ClassVar[bool] = False
    example: ClassVar[Mapping[str, Any]]

    @property
    def random_in_training(self) -> bool:
        """Whether training draws more than dropout."""
        return False

    @property
    def vectorizes(self) -> bool:
        """Whether what it does to several members is computed at once."""
        return True

    @property
    def reads_weights(self) -> bool:
        """Whether it reads weights of the backbone, which are not to be quantized then."""
        return False

    @property
    def restores(self) -> bool:
        """Whether it starts from what the quantization of the backbone took of its weights."""
        return False

    @property
    def settled(self) -> tuple[str, Mapping[str, Any]] | None:
        """The simpler method, with its options, that does the same at the same sites when trained.

        None where there is none.
        """
        return None

    def settled_weights(self, weights: Weights) -> Weights:
        """The tensors of that method at a site."""
        return weights

    @abstractmethod
    def looks_for(self) -> str:
        """What the method looks for in a layer, as the object of the sentence "... has no"."""

    @abstractmethod
    def sites(self, layer: LayerShape) -> tuple[Site, ...]:
        """The sites of the method in one layer; none where the layer lacks what it `looks_for`."""

    @abstractmethod
    def part(self, site: Site, weights: Weights) -> Part:
        """What the tensors of one site do to the forward pass, in which alone they are read."""

    def fold(self, site: Site, weights: Weights, base: Base) -> Fold:
        """The tensors of one site as a change of the backbone, where the method `merges`."""
        raise NotImplementedError(f"{type(self).__name__} does not merge at {site.name}")
