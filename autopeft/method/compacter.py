"""Compacter: adapters whose matrices are sums of Kronecker products with shared small factors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from autopeft.core.errors import AttachError
from autopeft.core.methods import Compacter
from autopeft.method.adapter import Bottlenecks
from autopeft.method.method import Weight, Weights


class CompacterMethod(Bottlenecks[Compacter]):
    """An adapter with matrices of n = `phm_dim` terms A_i ⊗ (s_i t_i).

    A (n, n, n), which all layers and both projections share, is drawn normally with a standard
    deviation of 0.1; s_i (outputs / n, `phm_rank`) and t_i (`phm_rank`, inputs / n) are drawn with
    that of Glorot, but t of the upward projection is zero.

    Raises:
        AttachError: n divides a width or the size with a remainder.

    References:
        Karimi Mahabadi et al., "Compacter: Efficient Low-Rank Hypercomplex Adapter Layers", 2021,
        equations 4 and 5.
    """

    example: ClassVar[Mapping[str, Any]] = {
        "form": "sequential",
        "at": "both",
        "size": 4,
        "activation": "gelu",
        "bias": True,
        "scale": 1.0,
        "phm_dim": 2,
        "phm_rank": 1,
    }

    def matrix_weights(self, name: str, inputs: int, outputs: int) -> tuple[Weight, ...]:
        n, rank = self.options.phm_dim, self.options.phm_rank
        for width in (inputs, outputs):
            if width % n:
                raise AttachError(f"must divide {width}, got {n}", "phm_dim")
        left, right = (n, outputs // n, rank), (n, rank, inputs // n)
        start: tuple[Any, ...] = ("normal", (2 / (rank + inputs // n)) ** 0.5)
        start = () if name == "up" else start
        s = Weight(f"{name}.s", left, "normal", (2 / (rank + outputs // n)) ** 0.5)
        t = Weight(f"{name}.t", right, *start)
        shared = Weight("A", (n, n, n), "normal", 0.1, shared="phm")
        return (s, t) if name == "up" else (shared, s, t)

    def matrix(self, name: str, weights: Weights) -> Tensor:
        a, small = weights["A"], weights[f"{name}.s"] @ weights[f"{name}.t"]
        product = torch.einsum("nij,nkl->ikjl", a, small)
        return product.flatten(2, 3).flatten(0, 1)
