"""AdaMix: adapters of several experts, one of which is drawn in every step of the training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from autopeft.core.methods import AdaMix
from autopeft.method.adapter import AdapterMethod, Bottlenecks
from autopeft.method.method import Weight, Weights


class AdaMixMethod(Bottlenecks[AdaMix]):
    """An adapter of `n_experts` downward and as many upward projections.

    While it is trained, each forward pass takes one of either, drawn independently; afterwards it
    takes the means. There is no term that pulls the experts together.

    References:
        Wang et al., "AdaMix: Mixture-of-Adaptations for Parameter-efficient Model Tuning", 2022,
        sections 3.1 and 3.3.
    """

    nests: ClassVar[bool] = True
    example: ClassVar[Mapping[str, Any]] = {**AdapterMethod.example, "n_experts": 3}

    @property
    def random_in_training(self) -> bool:
        return True

    @property
    def settled(self) -> tuple[str, Mapping[str, Any]]:
        return self.as_adapter

    def settled_weights(self, weights: Weights) -> Weights:
        return {name: weight.mean(0) for name, weight in weights.items()}

    def matrix_weights(self, name: str, inputs: int, outputs: int) -> tuple[Weight, ...]:
        scale = {"scale": inputs**-0.5, "draw": "uniform"} if name == "down" else {}
        return (self._of_experts(Weight(f"{name}.weight", (outputs, inputs), **scale)),)

    def bias_weights(self, name: str, outputs: int) -> tuple[Weight, ...]:
        return tuple(map(self._of_experts, super().bias_weights(name, outputs)))

    def matrix(self, name: str, weights: Weights, shape: tuple[int, int]) -> Tensor:
        return weights[f"{name}.weight"].mean(0)

    def projection(
        self, name: str, weights: Weights, shape: tuple[int, int], training: bool
    ) -> tuple[Tensor, Tensor | None]:
        matrices, biases = weights[f"{name}.weight"], weights.get(f"{name}.bias")
        if not training:
            return self.matrix(name, weights, shape), None if biases is None else biases.mean(0)
        drawn = torch.randint(self.options.n_experts, (1,), device=matrices.device)
        matrix, *bias = (
            of.index_select(0, drawn)[0] for of in (matrices, biases) if of is not None
        )
        return matrix, bias[0] if bias else None

    def _of_experts(self, weight: Weight) -> Weight:
        return replace(weight, shape=(self.options.n_experts, *weight.shape))
