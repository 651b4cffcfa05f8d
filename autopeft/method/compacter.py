"""Compacter: adapters whose matrices are sums of Kronecker products with shared small factors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from autopeft.core.methods import Compacter
from autopeft.method.adapter import Bottlenecks
from autopeft.method.method import Weight, Weights


class CompacterMethod(Bottlenecks[Compacter]):
    """An adapter with matrices of n = `phm_dim` terms A_i ⊗ (s_i t_i).

    A (n, n, n), which all layers and both projections share, is drawn normally with a standard
    deviation of 0.1; s_i (outputs / n, `phm_rank`) and t_i (`phm_rank`, inputs / n) are drawn with
    that of Glorot, but t of the upward projection is zero. Where n leaves a remainder, they are
    one larger and the product is cut.

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
        rows, columns = -(-outputs // n), -(-inputs // n)
        s = Weight(f"{name}.s", (n, rows, rank), "normal", (2 / (rank + rows)) ** 0.5)
        t = Weight(f"{name}.t", (n, rank, columns), "normal", (2 / (rank + columns)) ** 0.5)
        if name == "up":
            t = Weight(t.name, t.shape)
        shared = Weight("A", (n, n, n), "normal", 0.1, shared="phm")
        return (s, t) if name == "up" else (shared, s, t)

    def matrix(self, name: str, weights: Weights, shape: tuple[int, int]) -> Tensor:
        a, small = weights["A"], weights[f"{name}.s"] @ weights[f"{name}.t"]
        product = torch.einsum("nij,nkl->ikjl", a, small)
        return product.flatten(2, 3).flatten(0, 1)[: shape[0], : shape[1]]
