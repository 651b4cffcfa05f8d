"""Ladder side tuning: a narrow network beside the backbone, fed by what leaves its layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from autopeft.core.methods import Ladder
from autopeft.core.shape import LayerShape
from autopeft.method.method import Beside, Method, Site, Weight, Weights

TEMPERATURE = 0.1
_ATTENTION = ("query", "key", "value")


class LadderMethod(Method[Ladder]):
    """Adds what a network of `size` makes of the hidden states, above the layers of the placement.

    After layer i, with s of the layer below (zero below the first) and h what leaves the layer,
    normalised, u = g D h + (1 - g) s, where g = sigmoid(a / 0.1); then a = u + O attention(Q u,
    K u, V u), of one head, over what the layer lets a position see, and s' = a + Z relu(Y a + c)
    + e. W s' is added to what leaves the highest of consecutive layers. W, O, Z and the biases
    start at zero, Q, K, V, Y and D at random, not at parts of the backbone. Gradients end at h, so
    that no pass goes back through the backbone below. Generation cannot use a cache.

    References:
        Sung et al., "LST: Ladder Side-Tuning for Parameter and Memory Efficient Transfer
        Learning", 2022, section 3.2.
    """

    in_cache: ClassVar[bool] = False
    goes_along: ClassVar[bool] = True
    example: ClassVar[Mapping[str, Any]] = {"size": 4}

    def looks_for(self) -> str:
        return "attention with keys and values"

    def sites(self, layer: LayerShape) -> tuple[Site, ...]:
        if layer.linear("self.k") is None:
            return ()
        size, width = self.options.size, layer.width
        weights = (
            Weight("down.weight", (size, width), "uniform", width**-0.5),
            Weight("gate", ()),
            *(
                Weight(f"{name}.weight", (size, size), "uniform", size**-0.5)
                for name in (*_ATTENTION, "inner")
            ),
            Weight("attended.weight", (size, size)),
            Weight("inner.bias", (size,)),
            Weight("outer.weight", (size, size)),
            Weight("outer.bias", (size,)),
            Weight("up.weight", (width, size), shared=f"width {width}"),
        )
        return (Site("layer", "self.k", weights),)

    def part(self, site: Site, weights: Weights) -> Beside:
        def step(hidden: Tensor, state: Tensor | None, seen: Tensor) -> Tensor:
            normal = F.layer_norm(hidden, hidden.shape[-1:])
            gate = torch.sigmoid(weights["gate"] / TEMPERATURE)
            mixed = gate * F.linear(normal, weights["down.weight"])
            mixed = mixed if state is None else mixed + (1 - gate) * state
            query, key, value = (
                F.linear(mixed, weights[f"{of}.weight"])[:, None] for of in _ATTENTION
            )
            attended = F.scaled_dot_product_attention(query, key, value, attn_mask=seen)[:, 0]
            mixed = mixed + F.linear(attended, weights["attended.weight"])
            inner = F.relu(F.linear(mixed, weights["inner.weight"], weights["inner.bias"]))
            return mixed + F.linear(inner, weights["outer.weight"], weights["outer.bias"])

        return Beside(step, lambda state: F.linear(state, weights["up.weight"]))
