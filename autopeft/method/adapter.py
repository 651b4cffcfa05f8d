"""Adapters: a bottleneck after a sublayer or beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor
from torch.nn import functional as F

from autopeft.core.errors import AttachError
from autopeft.core.shape import LayerShape
from autopeft.method.method import (
    Branch,
    Method,
    Site,
    Weight,
    Weights,
    check_name,
    check_number,
    check_size,
)

ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "gelu": F.gelu}
_OUTPUT = {"self": "self.o", "cross": "cross.o", "ffn": "down"}


@dataclass(frozen=True)
class Adapter(Method):
    """Adds scale * (W_up act(W_down x + b) + c) to the output of a sublayer, before the residual.

    x is that output itself (`sequential`) or the input of the sublayer (`parallel`). W_down
    (size, width) is drawn uniformly within 1/sqrt(width); W_up, b and c are zero.

    Attributes:
        at: `attention` is after every attention of a layer, self and cross.
        size: rows of the bottleneck.
        bias: whether b and c are trained; without them they are absent.

    References:
        Houlsby et al., "Parameter-Efficient Transfer Learning for NLP", 2019, section 2;
        He et al., "Towards a Unified View of Parameter-Efficient Transfer Learning", 2022, table 1.
    """

    form: str
    at: str
    size: int
    activation: str
    bias: bool
    scale: float

    example: ClassVar[Mapping[str, Any]] = {
        "form": "parallel",
        "at": "both",
        "size": 5,
        "activation": "gelu",
        "bias": True,
        "scale": 2.0,
    }

    def __post_init__(self) -> None:
        check_name("form", self.form, ("sequential", "parallel"))
        check_name("at", self.at, ("attention", "ffn", "both"))
        check_size("size", self.size)
        check_name("activation", self.activation, tuple(ACTIVATIONS))
        if not isinstance(self.bias, bool):
            raise AttachError(f"must be true or false, got {self.bias!r}", "bias")
        check_number("scale", self.scale, low=0)

    def wanted(self) -> str:
        return {"attention": "attention", "ffn": "feed-forward network"}.get(self.at, "sublayer")

    def sites(self, layer: LayerShape) -> tuple[Site, ...]:
        attentions = () if self.at == "ffn" else tuple(layer.attentions())
        names = attentions if self.at == "attention" else (*attentions, "ffn")
        return tuple(self._site(layer, name) for name in names if layer.linear(_OUTPUT[name]))

    def part(self, site: Site, weights: Weights) -> Branch:
        activation = ACTIVATIONS[self.activation]

        def change(x: Tensor, training: bool) -> Tensor:
            inner = activation(F.linear(x, weights["down.weight"], weights.get("down.bias")))
            outer = F.linear(inner, weights["up.weight"], weights.get("up.bias"))
            return outer if self.scale == 1 else outer * self.scale

        return Branch(site.at, "output" if self.form == "sequential" else _entry(site.name), change)

    def _site(self, layer: LayerShape, name: str) -> Site:
        output = layer.linear(_OUTPUT[name])
        entry = output if self.form == "sequential" else layer.linear(_entry(name))
        assert output is not None
        assert entry is not None
        inputs = output.outputs if self.form == "sequential" else entry.inputs
        weights = [
            Weight("down.weight", (self.size, inputs), "uniform", inputs**-0.5),
            Weight("up.weight", (output.outputs, self.size)),
        ]
        if self.bias:
            weights += [Weight("down.bias", (self.size,)), Weight("up.bias", (output.outputs,))]
        return Site(name, output.role, tuple(weights))


def _entry(name: str) -> str:
    """The linear whose input is that of the sublayer.

    In self-attention it is the value projection: disentangled attention runs query and key
    projections on position embeddings as well.
    """
    return {"self": "self.v", "cross": "cross.q", "ffn": "up"}[name]
