"""ProPETL: parts of one adapter that all sublayers share, chosen by masks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from autopeft.core.methods import ProPetl
from autopeft.method.adapter import AdapterMethod, Masked
from autopeft.method.method import Weight, Weights


class ProPetlMethod(Masked[ProPetl]):
    """An adapter with matrices m * W: W and the biases are shared, the masks m are not.

    m is 1 at the `density` of the elements with the largest |s| and 0 elsewhere. The scores s are
    drawn uniformly within 1/sqrt(columns); their gradient is that of m as if it were |s|. Ranks are
    those of s in bfloat16, so that they are the same in any precision.

    References:
        Zeng et al., "One Network, Many Masks: Towards More Parameter-Efficient Transfer Learning",
        2023, section 3; Ramanujan et al., "What's Hidden in a Randomly Weighted Neural Network?",
        2020, section 3 (the scores).
    """

    example: ClassVar[Mapping[str, Any]] = {**AdapterMethod.example, "density": 0.5}

    def matrix_weights(self, name: str, inputs: int, outputs: int) -> tuple[Weight, ...]:
        shape, bound = (outputs, inputs), inputs**-0.5
        start = Weight("", shape, "uniform", bound) if name == "down" else Weight("", shape)
        scores = Weight(f"{name}.scores", shape, "uniform", bound)
        return _shared(replace(start, name=f"{name}.weight")), scores

    def bias_weights(self, name: str, outputs: int) -> tuple[Weight, ...]:
        return tuple(map(_shared, super().bias_weights(name, outputs)))

    def matrix(self, name: str, weights: Weights, shape: tuple[int, int]) -> Tensor:
        return weights[f"{name}.weight"] * _mask(weights[f"{name}.scores"], self.options.density)


def _shared(weight: Weight) -> Weight:
    """The same wherever it has this shape."""
    return replace(weight, shared="x".join(map(str, weight.shape)))


def _mask(scores: Tensor, density: float) -> Tensor:
    """1 at the largest sizes of scores (outputs, inputs), 0 elsewhere."""
    sizes = scores.abs().flatten()
    n = max(1, round(density * sizes.numel()))
    largest = sizes.bfloat16().sort(stable=True, descending=True).indices[:n]
    mask = torch.zeros_like(sizes).scatter(0, largest, 1.0)
    return (mask + (sizes - sizes.detach())).view_as(scores)
