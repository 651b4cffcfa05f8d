"""Where a layer has sublayers, and what a method after or beside one of them reads."""

from __future__ import annotations

from abc import abstractmethod
from typing import TypeVar

from autopeft.core.methods import Sublayer
from autopeft.core.shape import LayerShape
from autopeft.method.method import OUTPUT, Method, Site, Weight

_OUTPUT = {"self": "self.o", "cross": "cross.o", "ffn": "down"}
_ENTRY = {"self": "self.v", "cross": "cross.q", "ffn": "up"}
"""The linear whose input is that of the sublayer.

In self-attention it is the value projection: disentangled attention runs query and key projections
on position embeddings as well.
"""

AtSublayer = TypeVar("AtSublayer", bound=Sublayer)


class Sublayers(Method[AtSublayer]):
    """A method that adds to what leaves some sublayers, before the residual."""

    def looks_for(self) -> str:
        sublayers = {"attention": "attention", "ffn": "feed-forward network", "both": "sublayer"}
        return sublayers[self.options.at]

    def sites(self, layer: LayerShape) -> tuple[Site, ...]:
        names = [] if self.options.at == "ffn" else [*layer.attentions()]
        names += [] if self.options.at == "attention" else ["ffn"]
        return tuple(self._site(layer, name) for name in names if layer.linear(_OUTPUT[name]))

    @abstractmethod
    def weights(self, inputs: int, outputs: int) -> tuple[Weight, ...]:
        """The tensors at a sublayer, of the widths of what is read and of what leaves it."""

    def reads(self, site: Site) -> str:
        """What a `Change` reads there: what leaves the sublayer, or what enters it."""
        return OUTPUT if self._is_sequential else _ENTRY[site.name]

    @property
    def _is_sequential(self) -> bool:
        return self.options.form == "sequential"

    def _site(self, layer: LayerShape, name: str) -> Site:
        output = layer.linear(_OUTPUT[name])
        entry = output if self._is_sequential else layer.linear(_ENTRY[name])
        assert output is not None
        assert entry is not None
        inputs, outputs = output.outputs if self._is_sequential else entry.inputs, output.outputs
        weights = self.weights(inputs, outputs)
        return Site(name, output.role, weights, shape=(outputs, inputs))
