"""Training the backbone's own weights at some linears: all of them, or a few."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from autopeft.core.methods import FullTuning, SparseTuning
from autopeft.core.shape import Linear
from autopeft.method.evidence import Fisher
from autopeft.method.lora import BesideLinears
from autopeft.method.method import Base, Change, Fold, FromData, Site, Weight, Weights


class FullTuningMethod(BesideLinears[FullTuning]):
    """Trains whole linears: adds a matrix (outputs, inputs) and, where one is, to the bias.

    References:
        Gheini et al., "Cross-Attention is All You Need: Adapting Pretrained Transformers for
        Machine Translation", 2021, with `targets: [cross.q, cross.k, cross.v, cross.o]`.
    """

    merges: ClassVar[bool] = True
    example: ClassVar[Mapping[str, Any]] = {"targets": ("q", "down")}

    def weights(self, linear: Linear) -> tuple[Weight, ...]:
        matrix = Weight("weight", (linear.outputs, linear.inputs))
        return (matrix, Weight("bias", (linear.outputs,))) if linear.bias else (matrix,)

    def changes(self, linear: Linear) -> Mapping[str, int]:
        bias = {f"{linear.role}.bias": linear.outputs} if linear.bias else {}
        return {**super().changes(linear), **bias}

    def part(self, site: Site, weights: Weights) -> Change:
        def change(x: Tensor, training: bool) -> Tensor:
            return F.linear(x, weights["weight"], weights.get("bias"))

        return Change(site.at, change)

    def fold(self, site: Site, weights: Weights, base: Base) -> Fold:
        return Fold(weights["weight"], weights.get("bias"))


class SparseTuningMethod(BesideLinears[SparseTuning]):
    """Trains as many elements of a weight as LoRA of rank r has there, r (inputs + outputs).

    They are the smallest in magnitude, the largest, drawn at random, or those with most empirical
    Fisher information in some training examples, as many in each linear.

    References:
        Liao et al., "Parameter-Efficient Fine-Tuning without Introducing New Latency", 2023,
        section 3.1 (PaFi: the smallest); Bhardwaj et al., "Sparse High Rank Adapters", 2024,
        section 3.1 (SHiRA: at random, the largest); Sung et al., "Training Neural Networks with
        Fixed Sparse Masks", 2021 (FishMask); Xu et al., "Raise a Child in Large Language Model",
        2021 (Child-Tuning-D).
    """

    merges: ClassVar[bool] = True
    example: ClassVar[Mapping[str, Any]] = {"targets": ("q", "down"), "r": 2, "select": "random"}

    @property
    def reads_weights(self) -> bool:
        return self.options.select in ("smallest", "largest")

    def weights(self, linear: Linear) -> tuple[Weight, ...]:
        n = self._elements(linear)
        size = linear.inputs * linear.outputs
        index = Weight("index", (n,), trained=False, dtype=torch.int64)
        if self.options.select == "fisher":
            evidence = partial(Fisher, n, (linear.outputs, linear.inputs))
            index = replace(index, from_data=FromData(evidence, self.options.num_samples))
        else:
            index = replace(index, draw=partial(chosen, n, size, self.options.select))
        return Weight("values", (n,)), index

    def changes(self, linear: Linear) -> Mapping[str, int]:
        return {f"{linear.role}.weight": self._elements(linear)}

    def part(self, site: Site, weights: Weights) -> Change:
        def change(x: Tensor, training: bool) -> Tensor:
            return F.linear(x, spread(weights["values"], weights["index"], site.shape))

        return Change(site.at, change)

    def fold(self, site: Site, weights: Weights, base: Base) -> Fold:
        return Fold(spread(weights["values"], weights["index"], site.shape))

    def _elements(self, linear: Linear) -> int:
        inputs, outputs = linear.inputs, linear.outputs
        return min(self.options.r * (inputs + outputs), inputs * outputs)


def chosen(n: int, size: int, which: str, weight: Tensor, generator: torch.Generator) -> Tensor:
    """The places of n elements in the flat weight of that size, ascending, (n,)."""
    if which == "random":
        places = torch.randperm(size, generator=generator)[:n].to(weight.device)
    else:
        places = weight.abs().flatten().topk(n, largest=which == "largest").indices
    return places.sort().values


def spread(values: Tensor, places: Tensor, shape: tuple[int, int]) -> Tensor:
    """The values (n,) at their places in the flat matrix, zeros elsewhere, (outputs, inputs)."""
    return values.new_zeros(math.prod(shape)).scatter(0, places, values).view(shape)
