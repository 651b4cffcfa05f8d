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


class LadderMethod(Method[Ladder]):
    """Adds what a network of `size` makes of the hidden states, above the layers of the placement.

    After layer i, with s of the layer below (zero below the first) and h what leaves the layer,
    normalised, u = g D h + (1 - g) s and s' = u + V relu(U u + c) + e, where g = sigmoid(a / 0.1).
    W s' is added to what leaves the highest of consecutive layers; W, V and the biases start at
    zero. Gradients end at h, so that no pass goes back through the backbone below. Positions stay
    apart, where the paper's blocks are transformer layers.

    References:
        Sung et al., "LST: Ladder Side-Tuning for Parameter and Memory Efficient Transfer
        Learning", 2022, section 3.2.
    """

    example: ClassVar[Mapping[str, Any]] = {"size": 4}

    def looks_for(self) -> str:
        return "feed-forward network or attention"

    def sites(self, layer: LayerShape) -> tuple[Site, ...]:
        if not layer.linears:
            return ()
        size, width = self.options.size, layer.width
        weights = (
            Weight("down.weight", (size, width), "uniform", width**-0.5),
            Weight("gate", ()),
            Weight("inner.weight", (size, size), "uniform", size**-0.5),
            Weight("inner.bias", (size,)),
            Weight("outer.weight", (size, size)),
            Weight("outer.bias", (size,)),
            Weight("up.weight", (width, size), shared=f"width {width}"),
        )
        return (Site("layer", layer.linears[-1].role, weights),)

    def part(self, site: Site, weights: Weights) -> Beside:
        def step(hidden: Tensor, state: Tensor | None) -> Tensor:
            normal = F.layer_norm(hidden, hidden.shape[-1:])
            gate = torch.sigmoid(weights["gate"] / TEMPERATURE)
            mixed = gate * F.linear(normal, weights["down.weight"])
            mixed = mixed if state is None else mixed + (1 - gate) * state
            inner = F.relu(F.linear(mixed, weights["inner.weight"], weights["inner.bias"]))
            return mixed + F.linear(inner, weights["outer.weight"], weights["outer.bias"])

        return Beside(step, lambda state: F.linear(state, weights["up.weight"]))
