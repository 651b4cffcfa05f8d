"""Prefix tuning: trained keys and values in front of an attention's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from autopeft.core.methods import Prefix
from autopeft.core.shape import LayerShape, Linear
from autopeft.method.method import Context, Method, Site, Weight, Weights

INITIAL_STD = 0.2


class PrefixMethod(Method[Prefix]):
    """Lets every query of a layer, in self- and cross-attention, see `length` more positions.

    Keys and values, of shape (length, width of keys), are trained themselves, without the paper's
    reparametrising network: they want a learning rate some thirty times that of other methods.
    Positions of the tokens stay what they were, so no length of the context is lost.

    References:
        Li and Liang, "Prefix-Tuning: Optimizing Continuous Prompts for Generation", 2021, section
        4; Liu et al., "P-Tuning v2", 2022, for training the keys and values of every layer.
    """

    identity_at_start: ClassVar[bool] = False
    in_attention: ClassVar[bool] = True
    example: ClassVar[Mapping[str, Any]] = {"length": 4}

    def looks_for(self) -> str:
        return "attention with keys and values"

    def sites(self, layer: LayerShape) -> tuple[Site, ...]:
        keys = (layer.linear(f"{attention}.k") for attention in layer.attentions())
        return tuple(self._site(key) for key in keys if key is not None)

    def part(self, site: Site, weights: Weights) -> Context:
        return Context(site.name, weights["key"], weights["value"])

    def _site(self, key: Linear) -> Site:
        shape = (self.options.length, key.outputs)
        weights = tuple(Weight(name, shape, "normal", INITIAL_STD) for name in ("key", "value"))
        return Site(key.role.rsplit(".", 1)[0], key.role, weights)
