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


class PrefixMethod(Method[Prefix]):
    """Lets every query of a layer, in self- and cross-attention, see `length` more positions.

    Keys and values, of shape (length, width of keys), are trained themselves: they want a learning
    rate some thirty times that of other methods. With `prefix_projection` they are W tanh(V e + c)
    + b, where e, V (`encoder_hidden_size`, width) and c are one for all layers. Positions of the
    tokens stay what they were, so no length of the context is lost.

    References:
        Li and Liang, "Prefix-Tuning: Optimizing Continuous Prompts for Generation", 2021, section
        4, equation 3; Liu et al., "P-Tuning v2", 2022, for training them themselves.
    """

    identity_at_start: ClassVar[bool] = False
    in_attention: ClassVar[bool] = True
    example: ClassVar[Mapping[str, Any]] = {"length": 4}

    @property
    def settled(self) -> tuple[str, Mapping[str, Any]] | None:
        return (
            ("prefix", {"length": self.options.length}) if self.options.prefix_projection else None
        )

    def settled_weights(self, weights: Weights) -> Weights:
        key, value = self._read(weights)
        return {"key": key, "value": value}

    def looks_for(self) -> str:
        return "attention with keys and values"

    def sites(self, layer: LayerShape) -> tuple[Site, ...]:
        keys = (layer.linear(f"{attention}.k") for attention in layer.attentions())
        return tuple(self._site(key, layer.width) for key in keys if key is not None)

    def part(self, site: Site, weights: Weights) -> Context:
        return Context(site.name, self.options.length, lambda: self._read(weights))

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
        shape = (key.outputs, width)
        if self.options.prefix_projection:
            return Site(attention, key.role, self._projected(key, width), shape=shape)
        size = (self.options.length, key.outputs)
        weights = tuple(Weight(name, size, "normal", INITIAL_STD) for name in ("key", "value"))
        return Site(attention, key.role, weights, shape=shape)

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
