"""SparseAdapter: adapters of which some elements are trained, chosen before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from autopeft.core.methods import SparseAdapter
from autopeft.method.adapter import ACTIVATIONS, AdapterMethod, Masked
from autopeft.method.evidence import Snip
from autopeft.method.method import FromData, Weight, Weights
from autopeft.method.select import spread


class SparseAdapterMethod(Masked[SparseAdapter]):
    """An adapter with matrices that are zero but for the `density` of their elements.

    These are drawn at random, or are those to which the loss of training examples is most sensitive
    where both matrices are drawn uniformly within 1/sqrt(columns); as many in each. The downward
    one starts from what was drawn, the same for every seed and layer, the upward one at zero.

    References:
        He et al., "SparseAdapter: An Easy Approach for Improving the Parameter-Efficiency of
        Adapters", 2022, sections 3.1 and 3.2.
    """

    example: ClassVar[Mapping[str, Any]] = {
        **AdapterMethod.example,
        "density": 0.5,
        "select": "random",
    }

    def matrix_weights(self, name: str, inputs: int, outputs: int) -> tuple[Weight, ...]:
        shape, size = (outputs, inputs), outputs * inputs
        n = max(1, round(self.options.density * size))
        key = f"sparse-adapter {outputs}x{inputs}"
        drawn = Weight(f"{name}.drawn", shape, "uniform", inputs**-0.5, trained=False, shared=key)
        if self.options.select == "random":
            index = Weight(f"{name}.index", (n,), partial(_some, n, size, name == "up"))
        else:
            evidence = partial(Snip, n, shape, drawn.name, partial(self._gradient, name))
            data = FromData(evidence, self.options.num_samples)
            index = Weight(f"{name}.index", (n,), from_data=data)
        index = replace(index, trained=False, dtype=torch.int64)
        return drawn, Weight(f"{name}.values", (n,)), index

    def matrix(self, name: str, weights: Weights, shape: tuple[int, int]) -> Tensor:
        places, drawn = weights[f"{name}.index"], weights[f"{name}.drawn"]
        values = weights[f"{name}.values"]
        if name == "down":
            values = values + drawn.flatten()[places]
        return spread(values, places, (drawn.shape[0], drawn.shape[1]))

    def _gradient(
        self, name: str, tensors: Mapping[str, Tensor], x: Tensor, gradient: Tensor
    ) -> Tensor:
        """That of a matrix as drawn, of what is read and of the gradient of what is added."""
        inner = F.linear(x, tensors["down.drawn"]).requires_grad_()
        with torch.enable_grad():
            active = ACTIVATIONS[self.options.activation](inner)
        if name == "up":
            return gradient.T @ active.detach()
        (of_inner,) = torch.autograd.grad(active, inner, gradient @ tensors["up.drawn"])
        return of_inner.T @ x


def _some(n: int, size: int, last: bool, weight: Tensor, generator: torch.Generator) -> Tensor:
    """The first or the last n places of a flat matrix in random order, ascending, (n,)."""
    shuffled = torch.randperm(size, generator=generator)
    return (shuffled[-n:] if last else shuffled[:n]).to(weight.device).sort().values
