"""Tiny-attention adapters: positions of a layer attend to one another once more, in few numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from autopeft.core.methods import TinyAttention
from autopeft.core.shape import LayerShape
from autopeft.method.method import SEEN, Change, Site, Weight, Weights
from autopeft.method.sublayers import Sublayers

_ATTENTION = ("query", "key", "value")


class TinyAttentionMethod(Sublayers[TinyAttention]):
    """Adds U [head_1; ...; head_m] + c to what leaves a sublayer, before the residual.

    Each head is softmax(q k / sqrt(head_dim)) v over the positions that the layer lets a position
    see, where q = Q n + b, k = K n and v = V n have `head_dim` numbers, and n is, normalised with a
    trained scale and shift, what leaves the sublayer (`sequential`) or enters it (`parallel`). U, c
    and b start at zero, Q, K and V uniformly within 1 / sqrt(width). After a cross-attention the
    positions attend to one another, too. Generation cannot use a cache.

    The paper adds after the residual, and after the norm where that follows. Its code has further
    maps of `head_dim` numbers between these, which are products with them, dropout in attention,
    and small numbers in the place of zero. Heads, which the paper calls experts, stay apart after
    the training, where the paper also averages their weights.

    References:
        Zhao, Tan and Mei, "Tiny-Attention Adapter: Contexts Are More Important Than the Number of
        Parameters", 2022, and its code, whose keys and values have biases besides.
    """

    in_cache: ClassVar[bool] = False
    example: ClassVar[Mapping[str, Any]] = {
        "form": "sequential",
        "at": "both",
        "head_dim": 2,
        "num_heads": 3,
    }

    def looks_for(self) -> str:
        more = "" if self.options.at == "attention" else f" beside a {super().looks_for()}"
        return f"self-attention{more}"

    def sites(self, layer: LayerShape) -> tuple[Site, ...]:
        return () if layer.linear("self.k") is None else super().sites(layer)

    def weights(self, inputs: int, outputs: int) -> tuple[Weight, ...]:
        size = self.options.head_dim * self.options.num_heads
        return (
            Weight("norm.weight", (inputs,), "constant", 1.0),
            Weight("norm.bias", (inputs,)),
            *(
                Weight(f"{name}.weight", (size, inputs), "uniform", inputs**-0.5)
                for name in _ATTENTION
            ),
            Weight("query.bias", (size,)),
            Weight("up.weight", (outputs, size)),
            Weight("up.bias", (outputs,)),
        )

    def part(self, site: Site, weights: Weights) -> Change:
        heads = self.options.num_heads, self.options.head_dim

        def change(x: Tensor, seen: Tensor, training: bool) -> Tensor:
            normal = F.layer_norm(x, x.shape[-1:], weights["norm.weight"], weights["norm.bias"])
            query, key, value = (
                F.linear(normal, weights[f"{name}.weight"], weights.get(f"{name}.bias"))
                .unflatten(-1, heads)
                .transpose(-3, -2)
                for name in _ATTENTION
            )
            scores = query @ key.transpose(-2, -1) / heads[1] ** 0.5
            scores = scores.masked_fill(~seen, torch.finfo(scores.dtype).min)
            attended = (scores.softmax(-1) @ value).transpose(-3, -2).flatten(-2)
            return F.linear(attended, weights["up.weight"], weights["up.bias"])

        return Change(site.at, change, (self.reads(site), SEEN))
