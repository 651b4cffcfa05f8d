"""(IA)³: trained factors of keys, values and what a feed-forward network computes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from autopeft.core.methods import Ia3
from autopeft.core.shape import Linear
from autopeft.method.lora import BesideLinears, of
from autopeft.method.method import INPUT, OUTPUT, Base, Change, Fold, Site, Weight, Weights


class Ia3Method(BesideLinears[Ia3]):
    """Multiplies what leaves a target, or enters one of `feedforward_modules`, by 1 + change.

    change, of one element an output or an input, is zero at the start.

    References:
        Liu et al., "Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper than In-Context
        Learning", 2022, section 3.3.
    """

    merges: ClassVar[bool] = True
    example: ClassVar[Mapping[str, Any]] = {
        "targets": ("k", "v", "down"),
        "feedforward_modules": ("down",),
    }

    def weights(self, linear: Linear) -> tuple[Weight, ...]:
        width = linear.inputs if self._enters(linear.role) else linear.outputs
        return (Weight("change", (width,)),)

    def changes(self, linear: Linear) -> Mapping[str, int]:
        bias = {f"{linear.role}.bias": linear.outputs} if linear.bias else {}
        return {**super().changes(linear), **({} if self._enters(linear.role) else bias)}

    def part(self, site: Site, weights: Weights) -> Change:
        def change(x: Tensor, training: bool) -> Tensor:
            return x * weights["change"]

        if self._enters(site.at):
            return Change(site.at, change, (INPUT,), side="input")
        return Change(site.at, change, (OUTPUT,))

    def fold(self, site: Site, weights: Weights, base: Base) -> Fold:
        change = weights["change"]
        if self._enters(site.at):
            return Fold(weight=base.weight * change)
        bias = None if base.bias is None else base.bias * change
        return Fold(weight=base.weight * change[:, None], bias=bias)

    def _enters(self, role: str) -> bool:
        return of(role, self.options.feedforward_modules)
