"""Sizes of `fill`: what a budget of trainable parameters leaves for each placement."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from autopeft.core.errors import SpaceError
from autopeft.core.methods import DECLARATIONS
from autopeft.core.options import MAX_SIZE
from autopeft.core.quantity import parse_quantity
from autopeft.core.shape import LayerShape, Shape
from autopeft.space.walk import Raw

Cost = Callable[[str, Mapping[str, Any], LayerShape], int]


def fill(
    raws: Sequence[Raw], tuned: Sequence[int], budget: Mapping[str, Any], shape: Shape, cost: Cost
) -> list[Raw]:
    """Gives every size of `fill` its number; what is filled stays within the budget.

    A layer's share follows the allocation of Chen et al. (2023), section 3: the same for every
    tuned layer, or growing or falling linearly with its rank. Placements of a given size are paid
    first, even beyond the share; those to be filled share the rest of the layer equally. A size
    that comes out as 0 is absent.

    Args:
        raws: all placements; those without `fill` are returned as they are.
        tuned: the layers that take part in the allocation, ascending.
        budget: `trainable_params` (an amount or a share of the backbone) and `allocation`.
        shape: the backbone.
        cost: trainable elements of one placement on one layer, affine in its size.
    """
    total = parse_quantity(budget["trainable_params"], "budget.trainable_params", shape.parameters)
    shares = _shares(total, tuned, budget.get("allocation", "uniform"))
    filled: list[Raw] = []
    for layer in sorted({raw.layer for raw in raws}):
        here = [raw for raw in raws if raw.layer == layer]
        open_ = [raw for raw in here if is_fill(raw)]
        fixed = [raw for raw in here if not is_fill(raw)]
        at = shape.layers[layer]
        rest = shares[layer] - sum(cost(raw.method, raw.options, at) for raw in fixed)
        sized = (_sized(raw, rest / len(open_), at, cost) for raw in open_)
        filled += [*fixed, *(raw for raw in sized if raw is not None)]
    return filled


def is_fill(raw: Raw) -> bool:
    """Whether the size of a placement is left to the budget."""
    size = DECLARATIONS[raw.method].size_option()
    return size is not None and raw.options[size] == "fill"


def _shares(total: float, tuned: Sequence[int], allocation: str) -> dict[int, float]:
    n = len(tuned)
    ranks = {
        "uniform": [1] * n,
        "increasing": list(range(1, n + 1)),
        "decreasing": list(range(n, 0, -1)),
    }[allocation]
    return {layer: total * rank / sum(ranks) for layer, rank in zip(tuned, ranks, strict=True)}


def _sized(raw: Raw, share: float, layer: LayerShape, cost: Cost) -> Raw | None:
    size = DECLARATIONS[raw.method].size_option()
    assert size is not None
    one, two = (cost(raw.method, {**raw.options, size: n}, layer) for n in (1, 2))
    if two == one:
        return None
    n = int((share - (2 * one - two)) // (two - one))
    if n > MAX_SIZE:
        reason = f"makes {size} of {raw.method} more than {MAX_SIZE}"
        raise SpaceError(reason, "budget.trainable_params")
    return replace(raw, options={**raw.options, size: n}) if n > 0 else None


def check_budget(has_fill: bool, budget: Any) -> None:
    """Checks that sizes of `fill` have a budget and a budget has sizes of `fill`.

    Raises:
        SpaceError: one stands without the other.
    """
    if has_fill and budget.get("trainable_params") is None:
        raise SpaceError("sizes of fill need a number of parameters", "budget.trainable_params")
    if not has_fill and budget.entries:
        raise SpaceError("no size is fill, so nothing follows the budget", "budget")
