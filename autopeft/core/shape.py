"""The numbers of a backbone that placing, counting and sizing need; no tensor, no framework."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

ATTENTION_ROLES = ("q", "k", "v", "o")
FFN_ROLES = ("up", "gate", "down")
ATTENTIONS = ("self", "cross")
ROLES = tuple(f"{a}.{r}" for a in ATTENTIONS for r in ATTENTION_ROLES) + FFN_ROLES


@dataclass(frozen=True)
class Linear:
    """One linear map of a layer: `role` is one of `ROLES`; `bias` says whether it has one."""

    role: str
    inputs: int
    outputs: int
    bias: bool


@dataclass(frozen=True)
class Norm:
    """One normalisation: `name` is its path inside the backbone, `width` its elements."""

    name: str
    width: int
    bias: bool


@dataclass(frozen=True)
class LayerShape:
    """One transformer layer.

    Attributes:
        stack: `encoder` or `decoder` where the backbone has both, else empty.
        width: elements of a hidden state.
        linears: in the order of the forward pass.
        norms: those of the layer; norms before the first layer of the backbone stand with the
            first, norms after the last with the last.
    """

    stack: str
    width: int
    linears: tuple[Linear, ...]
    norms: tuple[Norm, ...]

    def linear(self, role: str) -> Linear | None:
        """The linear of `role`, or None where the layer has none."""
        return next((linear for linear in self.linears if linear.role == role), None)

    def attentions(self) -> Iterator[str]:
        """`self` and `cross`, as far as the layer has them."""
        return (kind for kind in ATTENTIONS if self.linear(f"{kind}.k"))


@dataclass(frozen=True)
class Shape:
    """A backbone as numbers: its transformer layers in order, the encoder's before the decoder's.

    Attributes:
        parameters: elements of the pretrained backbone without the task head.
    """

    layers: tuple[LayerShape, ...]
    parameters: int

    def stack(self, name: str) -> range:
        """The indices of the layers of one stack; all layers for the empty name."""
        indices = [i for i, layer in enumerate(self.layers) if not name or layer.stack == name]
        return range(indices[0], indices[-1] + 1) if indices else range(0)
