"""LoRA: a low-rank branch beside a linear."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor
from torch.nn import functional as F

from autopeft.core.methods import Lora
from autopeft.core.shape import LayerShape, Linear
from autopeft.method.method import Branch, Fold, Method, Site, Weight, Weights


class LoraMethod(Method[Lora]):
    """Adds scaling * B A x to the output of each target, scaling = lora_alpha / r.

    A (r, inputs) is drawn uniformly within 1/sqrt(inputs), B (outputs, r) is zero.

    References:
        Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021, equation 3.
    """

    merges: ClassVar[bool] = True
    example: ClassVar[Mapping[str, Any]] = {
        "targets": ("q", "v", "down"),
        "r": 3,
        "lora_alpha": None,
        "lora_dropout": 0.0,
    }

    @property
    def scaling(self) -> float:
        """The factor of the branch."""
        return self.options.lora_alpha / self.options.r

    def looks_for(self) -> str:
        return f"linear named {' or '.join(self.options.targets)}"

    def sites(self, layer: LayerShape) -> tuple[Site, ...]:
        return tuple(self._site(linear) for linear in layer.linears if self._targets(linear.role))

    def part(self, site: Site, weights: Weights) -> Branch:
        a, b, dropout = weights["A"], weights["B"], self.options.lora_dropout

        def change(x: Tensor, training: bool) -> Tensor:
            x = F.dropout(x, dropout, training) if dropout else x
            return F.linear(F.linear(x, a), b * self.scaling)

        return Branch(site.at, "input", change)

    def fold(self, site: Site, weights: Weights) -> Fold:
        return Fold(weight=self.scaling * (weights["B"] @ weights["A"]))

    def _targets(self, role: str) -> bool:
        return role in self.options.targets or role.rsplit(".", 1)[-1] in self.options.targets

    def _site(self, linear: Linear) -> Site:
        a = Weight("A", (self.options.r, linear.inputs), "uniform", linear.inputs**-0.5)
        b = Weight("B", (linear.outputs, self.options.r))
        changes = {f"{linear.role}.weight": linear.inputs * linear.outputs}
        return Site(linear.role, linear.role, (a, b), changes)
