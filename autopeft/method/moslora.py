"""MoSLoRA: LoRA whose subspaces are mixed by a trained matrix."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor
from torch.nn import functional as F

from autopeft.core.methods import MosLora
from autopeft.core.shape import Linear
from autopeft.method.lora import LOW_RANK_EXAMPLE, BesideLinears, factors
from autopeft.method.method import Base, Change, Fold, Site, Weight, Weights


class MosLoraMethod(BesideLinears[MosLora]):
    """Adds scaling * B M A x to the output of each target, scaling = lora_alpha / r.

    A and B are those of LoRA; the mixer M (r, r) is drawn uniformly within 1/sqrt(r).

    References:
        Wu et al., "Mixture-of-Subspaces in Low-Rank Adaptation", 2024, equation 6.
    """

    merges: ClassVar[bool] = True
    nests: ClassVar[bool] = True
    example: ClassVar[Mapping[str, Any]] = LOW_RANK_EXAMPLE

    @property
    def scaling(self) -> float:
        """The factor of the branch."""
        return self.options.lora_alpha / self.options.r

    def weights(self, linear: Linear) -> tuple[Weight, ...]:
        r = self.options.r
        return *factors(linear, r), Weight("M", (r, r), "uniform", r**-0.5)

    def part(self, site: Site, weights: Weights) -> Change:
        dropout = self.options.lora_dropout

        def change(x: Tensor, training: bool) -> Tensor:
            x = F.dropout(x, dropout, training) if dropout else x
            mixed = F.linear(F.linear(x, weights["A"]), weights["M"])
            return F.linear(mixed, weights["B"] * self.scaling)

        return Change(site.at, change)

    def fold(self, site: Site, weights: Weights, base: Base) -> Fold:
        return Fold(weight=self.scaling * weights["B"] @ weights["M"] @ weights["A"])
