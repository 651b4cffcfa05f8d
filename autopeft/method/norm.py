"""Norm tuning: the scales and biases of norms are trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from autopeft.core.methods import NormTuning
from autopeft.core.shape import LayerShape
from autopeft.method.method import OUTPUT, Base, Change, Fold, Method, Site, Weight, Weights


class NormTuningMethod(Method[NormTuning]):
    """Makes of what a norm returns (1 + scale) y + bias, both zero at the start.

    That is a norm with other weights; a bias there is only where the norm has one.

    References:
        Zhao et al., "Tuning LayerNorm in Attention: Towards Efficient Multi-Modal LLM Finetuning",
        2023, section 2.
    """

    merges: ClassVar[bool] = True
    example: ClassVar[Mapping[str, Any]] = {}

    def looks_for(self) -> str:
        return "norm"

    def sites(self, layer: LayerShape) -> tuple[Site, ...]:
        sites = []
        for norm in layer.norms:
            scale, bias = Weight("scale", (norm.width,)), Weight("bias", (norm.width,))
            names = ("weight", "bias") if norm.bias else ("weight",)
            changes = {f"{norm.name}.{name}": norm.width for name in names}
            weights = (scale, bias) if norm.bias else (scale,)
            sites.append(Site(norm.name, norm.name, weights, changes))
        return tuple(sites)

    def part(self, site: Site, weights: Weights) -> Change:
        bias = weights.get("bias")

        def change(y: Tensor, training: bool) -> Tensor:
            scaled = y * weights["scale"]
            return scaled if bias is None else scaled + bias

        return Change(site.at, change, (OUTPUT,))

    def fold(self, site: Site, weights: Weights, base: Base) -> Fold:
        scale, bias = weights["scale"], weights.get("bias")
        if bias is None or base.bias is None:
            return Fold(weight=base.scale * scale)
        return Fold(weight=base.scale * scale, bias=base.bias * scale + bias)
