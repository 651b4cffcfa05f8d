"""LoRA: a low-rank branch beside a linear."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor
from torch.nn import functional as F

from autopeft.core.errors import AttachError
from autopeft.core.shape import ATTENTION_ROLES, ROLES, LayerShape, Linear
from autopeft.method.method import (
    Branch,
    Fold,
    Method,
    Site,
    Weight,
    Weights,
    check_name,
    check_number,
    check_size,
)

TARGETS = ATTENTION_ROLES + ROLES


@dataclass(frozen=True)
class Lora(Method):
    """Adds scaling * B A x to the output of each target, scaling = lora_alpha / r.

    A (r, inputs) is drawn uniformly within 1/sqrt(inputs), B (outputs, r) is zero.

    Attributes:
        targets: site names; `q` is every query projection of a layer, `self.q` and `cross.q` one.
        r: rank.
        lora_alpha: None stands for 2 r.
        lora_dropout: probability at the branch's input.

    References:
        Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021, equation 3.
    """

    targets: tuple[str, ...]
    r: int
    lora_alpha: float | None
    lora_dropout: float

    merges: ClassVar[bool] = True
    example: ClassVar[Mapping[str, Any]] = {
        "targets": ("q", "v", "down"),
        "r": 3,
        "lora_alpha": None,
        "lora_dropout": 0.0,
    }

    def __post_init__(self) -> None:
        if not isinstance(self.targets, tuple) or not self.targets:
            raise AttachError(f"must be a tuple of site names, got {self.targets!r}", "targets")
        for target in self.targets:
            check_name("targets", target, TARGETS)
        check_size("r", self.r)
        if self.lora_alpha is not None:
            check_number("lora_alpha", self.lora_alpha, low=0)
        check_number("lora_dropout", self.lora_dropout, low=0, high=1)

    @property
    def scaling(self) -> float:
        """The factor of the branch."""
        return (2 * self.r if self.lora_alpha is None else self.lora_alpha) / self.r

    def wanted(self) -> str:
        return f"linear named {' or '.join(self.targets)}"

    def sites(self, layer: LayerShape) -> tuple[Site, ...]:
        return tuple(self._site(linear) for linear in layer.linears if self._targets(linear.role))

    def part(self, site: Site, weights: Weights) -> Branch:
        a, b = weights["A"], weights["B"]

        def change(x: Tensor, training: bool) -> Tensor:
            x = F.dropout(x, self.lora_dropout, training) if self.lora_dropout else x
            return F.linear(F.linear(x, a), b * self.scaling)

        return Branch(site.at, "input", change)

    def fold(self, site: Site, weights: Weights) -> Fold:
        return Fold(weight=self.scaling * (weights["B"] @ weights["A"]))

    def _targets(self, role: str) -> bool:
        return role in self.targets or role.rsplit(".", 1)[-1] in self.targets

    def _site(self, linear: Linear) -> Site:
        a = Weight("A", (self.r, linear.inputs), "uniform", linear.inputs**-0.5)
        b = Weight("B", (linear.outputs, self.r))
        changes = {f"{linear.role}.weight": linear.inputs * linear.outputs}
        return Site(linear.role, linear.role, (a, b), changes)
