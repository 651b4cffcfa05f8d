"""VeRA: trained factors between random matrices that all linears of a shape share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor
from torch.nn import functional as F

from autopeft.core.methods import Vera
from autopeft.core.shape import Linear
from autopeft.method.lora import BesideLinears
from autopeft.method.method import Base, Change, Fold, Site, Weight, Weights


class VeraMethod(BesideLinears[Vera]):
    """Adds b * (B (d * (A x))) to the output of each target.

    A (r, inputs) and B (outputs, r) are drawn once for all linears of a shape, uniformly within
    sqrt(6 / columns), and stay; d (r,) starts at `d_initial`, b (outputs,) at zero.

    References:
        Kopiczko et al., "VeRA: Vector-based Random Matrix Adaptation", 2024, equation 2.
    """

    merges: ClassVar[bool] = True
    example: ClassVar[Mapping[str, Any]] = {
        "targets": ("q", "v", "down"),
        "r": 5,
        "d_initial": 0.1,
    }

    def weights(self, linear: Linear) -> tuple[Weight, ...]:
        r, inputs, outputs = self.options.r, linear.inputs, linear.outputs
        key = f"vera {outputs}x{r}x{inputs}"
        a, b = ("A", (r, inputs)), ("B", (outputs, r))
        alike = (
            Weight(*of, "uniform", (6 / of[1][1]) ** 0.5, trained=False, shared=key)
            for of in (a, b)
        )
        return (
            *alike,
            Weight("d", (r,), "constant", self.options.d_initial),
            Weight("b", (outputs,)),
        )

    def part(self, site: Site, weights: Weights) -> Change:
        a, b = weights["A"], weights["B"]

        def change(x: Tensor, training: bool) -> Tensor:
            return F.linear(F.linear(x, a) * weights["d"], b) * weights["b"]

        return Change(site.at, change)

    def fold(self, site: Site, weights: Weights, base: Base) -> Fold:
        inner = weights["d"][:, None] * weights["A"]
        return Fold(weight=weights["b"][:, None] * (weights["B"] @ inner))
