"""Prompt tuning: trained hidden states in front of those of the text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor
from torch.nn import functional as F

from autopeft.core.methods import Prompt
from autopeft.core.shape import LayerShape
from autopeft.method.method import Insert, Method, Site, Weight, Weights

INITIAL_STD = 0.2
_NETWORK = ("inner", "middle", "outer")


class PromptMethod(Method[Prompt]):
    """Lets layers run on `length` more positions, (length, width), which stand before the text.

    They enter below the lowest of consecutive layers of the placement, move up through them like
    any text, and are dropped above the highest; with `deep` each layer has its own. Positions of
    tokens stay what they were; where positions are rotations, they are -length to -1. With
    `encoder_reparameterization_type: mlp` they are W3 relu(W2 relu(W1 e + b1) + b2) + b3.

    References:
        Lester et al., "The Power of Scale for Parameter-Efficient Prompt Tuning", 2021, section 2,
        on all layers; Liu et al., "Late Prompt Tuning", 2022, from a middle layer on; Jia et al.,
        "Visual Prompt Tuning", 2022, section 3.2, both forms; Liu et al., "GPT Understands, Too",
        2021 (P-tuning), for the network.
    """

    identity_at_start: ClassVar[bool] = False
    in_attention: ClassVar[bool] = True
    lengthens: ClassVar[bool] = True
    nests: ClassVar[bool] = True
    example: ClassVar[Mapping[str, Any]] = {"length": 4}

    @property
    def settled(self) -> tuple[str, Mapping[str, Any]] | None:
        if not self._has_network:
            return None
        return "prompt", {"length": self.options.length, "deep": self.options.deep}

    def settled_weights(self, weights: Weights) -> Weights:
        return {"vectors": self._read(weights)}

    def looks_for(self) -> str:
        return "attention with keys and values"

    def sites(self, layer: LayerShape) -> tuple[Site, ...]:
        if layer.linear("self.k") is None:
            return ()
        return (Site("layer", "self.k", self._weights(layer.width)),)

    def part(self, site: Site, weights: Weights) -> Insert:
        deep, length = self.options.deep, self.options.length
        return Insert(length, lambda: self._read(weights), moves=not deep)

    @property
    def _has_network(self) -> bool:
        return self.options.encoder_reparameterization_type == "mlp"

    def _read(self, weights: Weights) -> Tensor:
        """What enters, (length, width)."""
        if not self._has_network:
            return weights["vectors"]
        states = weights["embedding"]
        for name in _NETWORK:
            states = F.relu(states) if name != "inner" else states
            states = F.linear(states, weights[f"{name}.weight"], weights[f"{name}.bias"])
        return states

    def _weights(self, width: int) -> tuple[Weight, ...]:
        length = self.options.length
        shared = "" if self.options.deep else f"width {width}"
        if not self._has_network:
            return (Weight("vectors", (length, width), "normal", INITIAL_STD, shared=shared),)
        inner = self.options.encoder_hidden_size or width
        sizes = (width, inner, inner, width)
        network = (
            Weight(f"{name}.{tensor}", shape, "uniform", inputs**-0.5, shared=shared)
            for name, inputs, outputs in zip(_NETWORK, sizes, sizes[1:], strict=False)
            for tensor, shape in (("weight", (outputs, inputs)), ("bias", (outputs,)))
        )
        return (Weight("embedding", (length, width), "normal", 1.0, shared=shared), *network)
