"""LoRA: a low-rank branch beside a linear."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

from autopeft.core.methods import Lora
from autopeft.core.shape import LayerShape, Linear
from autopeft.method.evidence import Directions
from autopeft.method.method import Base, Change, Fold, FromData, Method, Site, Weight, Weights

OfLinears = TypeVar("OfLinears", bound=Any)

EVA_EXAMPLES = 128
"""Of the training, from which EVA starts."""


def of(role: str, targets: tuple[str, ...]) -> bool:
    """Whether targets such as `q` or `cross.q` mean a role such as `cross.q`."""
    return role in targets or role.rsplit(".", 1)[-1] in targets


class BesideLinears(Method[OfLinears]):
    """A method with a site at every linear that its option `targets` means."""

    def looks_for(self) -> str:
        return f"linear named {' or '.join(self.options.targets)}"

    def sites(self, layer: LayerShape) -> tuple[Site, ...]:
        targets = self.options.targets
        return tuple(self._site(linear) for linear in layer.linears if of(linear.role, targets))

    def _site(self, linear: Linear) -> Site:
        role, shape = linear.role, (linear.outputs, linear.inputs)
        return Site(role, role, self.weights(linear), self.changes(linear), shape)

    @abstractmethod
    def weights(self, linear: Linear) -> tuple[Weight, ...]:
        """The tensors at a linear."""

    def changes(self, linear: Linear) -> Mapping[str, int]:
        """The elements that merging changes there."""
        return {f"{linear.role}.weight": linear.inputs * linear.outputs}


LOW_RANK_EXAMPLE: Mapping[str, Any] = {
    "targets": ("q", "v", "down"),
    "r": 3,
    "lora_alpha": None,
    "lora_dropout": 0.0,
}


def factors(linear: Linear, r: int) -> tuple[Weight, Weight]:
    """A (r, inputs), drawn uniformly within 1/sqrt(inputs), and B (outputs, r), zero."""
    a = Weight("A", (r, linear.inputs), "uniform", linear.inputs**-0.5)
    return a, Weight("B", (linear.outputs, r))


class LoraMethod(BesideLinears[Lora]):
    """Adds scaling * B A x to the output of each target, scaling = lora_alpha / r.

    A (r, inputs) is drawn uniformly within 1/sqrt(inputs), B (outputs, r) is zero. PiSSA starts
    both at the r largest singular vectors; what that adds at the start is taken off again, which is
    the same as training beside the residual of the weight. LoftQ starts both at those of what the
    quantization of the backbone took of the weight, which is that of its algorithm 1 after one
    step: all configurations share the quantized weight. EVA starts A at the r directions in
    which what enters the linear varies most, the same rank everywhere.

    References:
        Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021, equation 3;
        Kalajdzievski, "A Rank Stabilization Scaling Factor for Fine-Tuning with LoRA", 2023;
        Zhang et al., "LoRA-FA", 2023; Valipour et al., "DyLoRA", 2023, section 3; Hayou et al.,
        "LoRA+", 2024, equation 5; Meng et al., "PiSSA: Principal Singular Values and Singular
        Vectors Adaptation", 2024, equations 2 to 4; Li et al., "LoftQ: LoRA-Fine-Tuning-Aware
        Quantization for Large Language Models", 2024, equation 8; Paischer et al., "One
        Initialization to Rule them All: Fine-tuning via Explained Variance Adaptation", 2024.
    """

    merges: ClassVar[bool] = True
    nests: ClassVar[bool] = True
    example: ClassVar[Mapping[str, Any]] = LOW_RANK_EXAMPLE

    @property
    def scaling(self) -> float:
        """The factor of the branch."""
        return self.options.lora_alpha / self.options.r**self._power

    @property
    def _power(self) -> float:
        """That of the rank by which the branch is divided."""
        return 0.5 if self.options.use_rslora else 1.0

    @property
    def random_in_training(self) -> bool:
        """DyLoRA draws ranks."""
        return self.options.use_dylora

    @property
    def settled(self) -> tuple[str, Mapping[str, Any]] | None:
        given = {name: getattr(self.options, name) for name in self.options.options()}
        start = "default" if self.restores else self.options.init_lora_weights
        plain = {**given, "use_dylora": False, "init_lora_weights": start}
        return None if plain == given else ("lora", plain)

    @property
    def reads_weights(self) -> bool:
        """PiSSA starts from them."""
        return self.options.init_lora_weights == "pissa"

    @property
    def restores(self) -> bool:
        """LoftQ does."""
        return self.options.init_lora_weights == "loftq"

    def weights(self, linear: Linear) -> tuple[Weight, ...]:
        options = self.options
        a, b = factors(linear, options.r)
        if options.init_lora_weights == "gaussian":
            a = Weight("A", a.shape, "normal", 1 / options.r)
        taken: tuple[Weight, ...] = ()
        make = {name: partial(_principal, name, options.r, self.scaling) for name in "AB"}
        if self.reads_weights or self.restores:
            a, b = Weight("A", a.shape, make["A"]), Weight("B", b.shape, make["B"])
        if self.reads_weights:
            taken = (
                Weight("A0", a.shape, make["A"], trained=False),
                Weight("B0", b.shape, make["B"], trained=False),
            )
        from_data = None
        if options.init_lora_weights == "eva":
            from_data = FromData(partial(Directions, options.r), EVA_EXAMPLES)
        a = replace(a, trained=not options.freeze_a, from_data=from_data)
        b = replace(b, rate=options.loraplus_lr_ratio)
        return a, b, *taken

    def part(self, site: Site, weights: Weights) -> Change:
        a, b, dropout = weights["A"], weights["B"], self.options.lora_dropout

        def change(x: Tensor, training: bool) -> Tensor:
            kept = F.dropout(x, dropout, training) if dropout else x
            inner = F.linear(kept, a)
            if training and self.random_in_training:
                inner = inner * _first(self.options.r, self._power, like=a)
            added = F.linear(inner, b * self.scaling)
            if not self.reads_weights:
                return added
            return added - F.linear(F.linear(x, weights["A0"]), weights["B0"] * self.scaling)

        return Change(site.at, change)

    def fold(self, site: Site, weights: Weights, base: Base) -> Fold:
        product = weights["B"] @ weights["A"]
        if self.reads_weights:
            product = product - weights["B0"] @ weights["A0"]
        return Fold(weight=self.scaling * product)


def _first(r: int, power: float, like: Tensor) -> Tensor:
    """Zero but for the first ranks, as many as are drawn: a power of r over their number, (r,)."""
    drawn = torch.randint(1, r + 1, (1,), device=like.device)
    ranks = torch.arange(r, device=like.device)
    return ((ranks < drawn) * (r / drawn) ** power).to(like.dtype)


def _principal(
    name: str, r: int, scaling: float, weight: Tensor, generator: torch.Generator
) -> Tensor:
    """The factor `A` (r, inputs) or `B` (outputs, r) of the r largest singular vectors."""
    left, sizes, right = torch.linalg.svd(weight, full_matrices=False)
    roots = (sizes[:r] / scaling).sqrt()
    return roots[:, None] * right[:r] if name == "A" else left[:, :r] * roots
