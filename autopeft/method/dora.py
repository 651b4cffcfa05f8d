"""DoRA: the direction and the length of each row of a weight, trained apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor
from torch.nn import functional as F

from autopeft.core.methods import Dora
from autopeft.core.shape import Linear
from autopeft.method.lora import LOW_RANK_EXAMPLE, BesideLinears, factors
from autopeft.method.method import (
    BIAS,
    INPUT,
    RAW,
    WEIGHT,
    Base,
    Change,
    Fold,
    Site,
    Weight,
    Weights,
)


class DoraMethod(BesideLinears[Dora]):
    """Makes of each target W' = m (W + scaling * B A) / |W + scaling * B A|, lengths of rows.

    A and B are those of LoRA, and m is |W| (1 + m_change), of which m_change (outputs,), zero at
    the start, is trained. No gradient goes through the length in the denominator.

    References:
        Liu et al., "DoRA: Weight-Decomposed Low-Rank Adaptation", 2024, equations 5 and 11.
    """

    merges: ClassVar[bool] = True
    nests: ClassVar[bool] = True
    example: ClassVar[Mapping[str, Any]] = LOW_RANK_EXAMPLE

    @property
    def reads_weights(self) -> bool:
        return True

    @property
    def scaling(self) -> float:
        """The factor of the product."""
        return self.options.lora_alpha / self.options.r

    def weights(self, linear: Linear) -> tuple[Weight, ...]:
        return *factors(linear, self.options.r), Weight("m_change", (linear.outputs,))

    def part(self, site: Site, weights: Weights) -> Change:
        dropout = self.options.lora_dropout

        def change(x: Tensor, raw: Tensor, weight: Tensor, bias: Tensor, training: bool) -> Tensor:
            kept = F.dropout(x, dropout, training) if dropout else x
            ratio = self._ratio(weights, weight)
            added = F.linear(F.linear(kept, weights["A"]), weights["B"] * self.scaling)
            return (ratio - 1) * (raw - bias) + ratio * added

        return Change(site.at, change, (INPUT, RAW, WEIGHT, BIAS))

    def fold(self, site: Site, weights: Weights, base: Base) -> Fold:
        turned = base.weight + self.scaling * weights["B"] @ weights["A"]
        return Fold(weight=self._ratio(weights, base.weight)[:, None] * turned - base.weight)

    def _ratio(self, weights: Weights, weight: Tensor) -> Tensor:
        """M over the length of each row with its change, (outputs,)."""
        turned = (weight + self.scaling * weights["B"] @ weights["A"]).detach()
        return weight.norm(dim=1) / turned.norm(dim=1) * (1 + weights["m_change"])
