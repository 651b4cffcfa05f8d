"""Prefix tuning: trained keys and values in front of an attention's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from autopeft.core.methods import Prefix
from autopeft.core.shape import LayerShape, Linear
from autopeft.method.method import Context, Method, Site, Weight, Weights

INITIAL_STD = 0.2
_GATE_STD = 0.02
_TOKENS, _LAYER = _ADAPTIVE = "alpha.weight", "lambda"


class PrefixMethod(Method[Prefix]):
    """Lets every query of a layer, in self- and cross-attention, see `length` more positions.

    Keys and values, of shape (length, width of keys), are trained themselves: they want a learning
    rate some thirty times that of other methods. With `prefix_projection` they are W tanh(V e + c)
    + b, where e, V (`encoder_hidden_size`, width) and c are one for all layers. Positions of the
    tokens stay what they were, so no length of the context is lost.

    With `adaptive` keys and values are l a times that: a = sigmoid(A h) has one number for each of
    them, where h is the mean over the text of what enters the attention, and l is one for all. A
    (length, width) is drawn with a standard deviation of 0.02, l starts at one. That h is a mean
    is a choice.

    References:
        Li and Liang, "Prefix-Tuning: Optimizing Continuous Prompts for Generation", 2021, section
        4, equation 3; Liu et al., "P-Tuning v2", 2022, for training them themselves; Zhang et al.,
        "Towards Adaptive Prefix Tuning for Parameter-Efficient Language Model Fine-tuning", 2023,
        for `adaptive`.
    """

    identity_at_start: ClassVar[bool] = False
    in_attention: ClassVar[bool] = True
    nests: ClassVar[bool] = True
    example: ClassVar[Mapping[str, Any]] = {"length": 4}

    @property
    def settled(self) -> tuple[str, Mapping[str, Any]] | None:
        if not self.options.prefix_projection:
            return None
        return "prefix", {"length": self.options.length, "adaptive": self.options.adaptive}

    def settled_weights(self, weights: Weights) -> Weights:
        key, value = self._read(weights)
        gates = {name: weights[name] for name in _ADAPTIVE if name in weights}
        return {"key": key, "value": value, **gates}

    def looks_for(self) -> str:
        return "attention with keys and values"

    def sites(self, layer: LayerShape) -> tuple[Site, ...]:
        keys = (layer.linear(f"{attention}.k") for attention in layer.attentions())
        return tuple(self._site(key, layer.width) for key in keys if key is not None)

    def part(self, site: Site, weights: Weights) -> Context:
        def gate(x: Tensor, average: Tensor) -> Tensor:
            """Of x (rows, positions, inputs), (rows, length, 1)."""
            tokens = torch.sigmoid(F.linear((x * average).sum(-2), weights[_TOKENS]))
            return (weights[_LAYER] * tokens)[..., None]

        gates = gate if self.options.adaptive else None
        return Context(site.name, self.options.length, lambda: self._read(weights), gates)

    def _read(self, weights: Weights) -> tuple[Tensor, Tensor]:
        """Keys and values, (length, width of keys)."""
        if not self.options.prefix_projection:
            return weights["key"], weights["value"]
        inner = F.linear(weights["embedding"], weights["inner.weight"], weights["inner.bias"])
        hidden = torch.tanh(inner)
        key, value = (
            F.linear(hidden, weights[f"{name}.weight"], weights[f"{name}.bias"])
            for name in ("key", "value")
        )
        return key, value

    def _site(self, key: Linear, width: int) -> Site:
        attention = key.role.rsplit(".", 1)[0]
        plain = not self.options.prefix_projection
        weights = self._plain(key) if plain else self._projected(key, width)
        if self.options.adaptive:
            tokens = Weight(_TOKENS, (self.options.length, width), "normal", _GATE_STD)
            weights = (*weights, tokens, Weight(_LAYER, (), "constant", 1.0))
        return Site(attention, key.role, weights, shape=(key.outputs, width))

    def _plain(self, key: Linear) -> tuple[Weight, ...]:
        size = (self.options.length, key.outputs)
        return tuple(Weight(name, size, "normal", INITIAL_STD) for name in ("key", "value"))

    def _projected(self, key: Linear, width: int) -> tuple[Weight, ...]:
        inner = self.options.encoder_hidden_size or width
        shared, bound = f"width {width}", inner**-0.5
        own = (
            Weight(f"{name}.{tensor}", shape, "uniform", bound)
            for name in ("key", "value")
            for tensor, shape in (("weight", (key.outputs, inner)), ("bias", (key.outputs,)))
        )
        return (
            Weight("embedding", (self.options.length, width), "normal", 1.0, shared=shared),
            Weight("inner.weight", (inner, width), "uniform", width**-0.5, shared=shared),
            Weight("inner.bias", (inner,), "uniform", width**-0.5, shared=shared),
            *own,
        )
