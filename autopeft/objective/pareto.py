"""Dominance, rank, crowding, hypervolume and knee of rows of losses; everything is minimised.

A row with a NaN says nothing: every row without one dominates it. Shapes: `n` rows (points), `m`
columns (objectives).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from autopeft.objective.array import Array
from autopeft.objective.ranking import Ranking


def ranks(losses: ArrayLike) -> NDArray[np.int64]:
    """The non-dominated rank of every row: 0 on the front, 1 on the front of the rest, and so on.

    Equal rows share a rank. Rows with a NaN share the rank after all others.

    Args:
        losses: of shape `(n, m)`.

    Returns:
        Ranks of shape `(n,)`.

    References:
        Deb et al., A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II, 2002, section
        III-A.
    """
    rows = _rows(losses)
    if not len(rows):
        return np.zeros(0, dtype=np.int64)
    ranking = Ranking(rows.shape[1])
    distinct, places = np.unique(rows, axis=0, return_inverse=True)
    for row in distinct:  # in this order none moves an earlier one
        ranking.add(row)
    return ranking.ranks[places.ravel()]


def front(losses: ArrayLike) -> NDArray[np.bool_]:
    """Which rows of shape `(n, m)` no row dominates; rows with a NaN never are among them."""
    rows = _rows(losses)
    result = np.zeros(len(rows), dtype=bool)
    usable = np.flatnonzero(~np.isnan(rows).any(axis=1))
    result[usable] = _is_best(rows[usable])
    return result


def crowding(losses: ArrayLike) -> Array:
    """The crowding distance of every row among rows of one rank; infinite at the extremes.

    Objectives without a finite spread do not count; rows with a NaN have distance 0.

    Args:
        losses: of shape `(n, m)`.

    Returns:
        Distances of shape `(n,)`.

    References:
        Deb et al., NSGA-II, 2002, section III-B.
    """
    rows = _rows(losses)
    result = np.zeros(len(rows))
    usable = np.flatnonzero(~np.isnan(rows).any(axis=1))
    for column in rows[usable].T:
        order = np.argsort(column, kind="stable")
        ordered = column[order]
        if len(ordered) == 0 or not np.isfinite(ordered[[0, -1]]).all():
            continue
        spread = ordered[-1] - ordered[0]
        if spread <= 0:
            continue
        gaps = np.full(len(ordered), np.inf)
        gaps[1:-1] = (ordered[2:] - ordered[:-2]) / spread
        # Equal values share the largest gap, so that the order of the rows does not matter.
        values, groups = np.unique(column, return_inverse=True)
        shared = np.zeros(len(values))
        np.maximum.at(shared, groups[order], gaps)
        result[usable] += shared[groups]
    return result


def hypervolume(losses: ArrayLike, reference: ArrayLike) -> float:
    """The volume that the rows dominate below the reference point.

    Args:
        losses: of shape `(n, m)`; rows that are not below the reference in every column, or hold a
            NaN, add nothing.
        reference: of shape `(m,)`.

    Returns:
        The volume, 0 for no rows; infinite where a row is.

    References:
        While et al., A Fast Way of Calculating Exact Hypervolumes, 2012 (the recursion beyond
        three objectives).
    """
    corner = np.asarray(reference, dtype=np.float64)
    rows = _rows(losses, width=len(corner))
    rows = rows[(rows < corner).all(axis=1)]
    if not np.isfinite(rows).all():
        return float("inf")
    rows = np.unique(rows, axis=0)
    return _volume(rows[_is_best(rows)], corner) if len(rows) else 0.0


def knee(losses: ArrayLike) -> int | None:
    """The row of the front that lies deepest below the plane through the ends of the front.

    Columns are first scaled to `[0, 1]` over the front, so the answer does not depend on units. In
    two columns the plane is the chord of the ends; in more it is that of equal sums.

    Args:
        losses: of shape `(n, m)`.

    Returns:
        The index of the row, the first of equals, or None where no row is finite.

    References:
        Das, On Characterizing the "Knee" of the Pareto Curve, 1999.
    """
    rows = _rows(losses)
    chosen = np.flatnonzero(front(rows) & np.isfinite(rows).all(axis=1))
    if not len(chosen):
        return None
    low, high = rows[chosen].min(axis=0), rows[chosen].max(axis=0)
    scaled = (rows[chosen] - low) / np.where(high > low, high - low, 1.0)
    sums = scaled.sum(axis=1)
    return int(chosen[np.flatnonzero(sums <= sums.min() + 1e-12)[0]])


def _rows(losses: ArrayLike, width: int | None = None) -> Array:
    rows = np.asarray(losses, dtype=np.float64)
    if rows.size == 0:
        return rows.reshape(0, width if width is not None else rows.shape[-1])
    if rows.ndim != 2 or (width is not None and rows.shape[1] != width):
        raise ValueError(f"expected losses of shape (n, {width or 'm'}), got {rows.shape}")
    return rows


def _is_best(rows: Array) -> NDArray[np.bool_]:
    """Which rows no other row dominates; `(n, m)` without NaN to `(n,)`."""
    result = np.zeros(len(rows), dtype=bool)
    left = np.lexsort(rows.T[::-1]) if len(rows) else np.zeros(0, dtype=np.int64)
    while len(left):  # the first row left is dominated by none: what dominates it stands before it
        best = rows[left[0]]
        equal = (rows[left] == best).all(axis=1)
        result[left[equal]] = True
        left = left[(rows[left] < best).any(axis=1)]
    return result


def _volume(rows: Array, corner: Array) -> float:
    """The volume of distinct, mutually non-dominated rows strictly below the corner."""
    if rows.shape[1] == 1:
        return float(corner[0] - rows.min())
    if rows.shape[1] == 2:
        return _area(rows, corner)
    if rows.shape[1] == 3:
        return _slabs(rows, corner)
    return _recursion(rows, corner)


def _area(rows: Array, corner: Array) -> float:
    """Two columns: one rectangle per row of the staircase."""
    rows = rows[np.argsort(rows[:, 0])]
    tops = np.concatenate([corner[1:], np.minimum.accumulate(rows[:-1, 1])])
    return float(((corner[0] - rows[:, 0]) * np.maximum(tops - rows[:, 1], 0.0)).sum())


def _slabs(rows: Array, corner: Array) -> float:
    """Three columns: the area of the rows so far times the way to the next row, along the third."""
    rows = rows[np.argsort(rows[:, 2], kind="stable")]
    heights = np.diff(np.append(rows[:, 2], corner[2]))
    areas = [_area(rows[: i + 1, :2], corner[:2]) for i in np.flatnonzero(heights > 0)]
    return float(np.dot(areas, heights[heights > 0]))


def _recursion(rows: Array, corner: Array) -> float:
    """The box of each row less what the rows after it already dominate (WFG)."""
    rows = rows[np.argsort(-rows[:, -1], kind="stable")]
    total = 0.0
    for i, row in enumerate(rows):
        overlap = np.unique(np.maximum(rows[i + 1 :], row), axis=0)
        inner = _volume(overlap[_is_best(overlap)], corner) if len(overlap) else 0.0
        total += float(np.prod(corner - row)) - inner
    return total
