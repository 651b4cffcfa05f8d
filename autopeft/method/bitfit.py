"""BitFit: the existing biases are trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from autopeft.core.methods import BitFit
from autopeft.core.shape import LayerShape
from autopeft.method.lora import of
from autopeft.method.method import Base, Change, Fold, Method, Site, Weight, Weights


class BitFitMethod(Method[BitFit]):
    """Adds a trained offset, zero at the start, to every existing bias of linears and norms.

    With `targets` to those of some linears alone: queries and what enters the feed-forward network
    are enough for most of the gain, by the paper. The gradient of the offset is that of the bias.

    References:
        Ben Zaken et al., "BitFit: Simple Parameter-efficient Fine-tuning for Transformer-based
        Masked Language-models", 2022, section 3.
    """

    merges: ClassVar[bool] = True
    example: ClassVar[Mapping[str, Any]] = {}

    def looks_for(self) -> str:
        targets = self.options.targets
        return "bias" if targets is None else f"bias of {' or '.join(targets)}"

    def sites(self, layer: LayerShape) -> tuple[Site, ...]:
        targets = self.options.targets
        widths = {
            linear.role: linear.outputs
            for linear in layer.linears
            if linear.bias and (targets is None or of(linear.role, targets))
        }
        if targets is None:
            widths |= {norm.name: norm.width for norm in layer.norms if norm.bias}
        return tuple(
            Site(name, name, (Weight("bias", (width,)),), {f"{name}.bias": width})
            for name, width in widths.items()
        )

    def part(self, site: Site, weights: Weights) -> Change:
        return Change(site.at, lambda training: weights["bias"], reads=())

    def fold(self, site: Site, weights: Weights, base: Base) -> Fold:
        return Fold(bias=weights["bias"])
