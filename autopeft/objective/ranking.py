"""Non-dominated ranks of rows of losses that come one at a time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from autopeft.objective.array import Array

Indices = NDArray[np.int64]


class Ranking:
    """The non-dominated ranks of the rows so far; the order in which they come does not matter.

    A row takes as long to add as it takes to compare it with every other one, plus what its
    arrival moves: rows of its rank that it dominates go one rank down, push others, and so on.

    Args:
        width: number of columns `m` of a row.
    """

    def __init__(self, width: int) -> None:
        self._columns = np.empty((width, 64))
        self._levels = np.empty(64, dtype=np.int64)
        self._n = 0

    def __len__(self) -> int:
        return self._n

    @property
    def rows(self) -> Array:
        """The rows in the order of their coming, shape `(n, m)`."""
        return self._columns[:, : self._n].T

    @property
    def ranks(self) -> Indices:
        """As `pareto.ranks` gives them, shape `(n,)`."""
        levels = self._levels[: self._n]
        return np.where(levels < 0, levels.max(initial=-1) + 1, levels)

    def add(self, row: Array) -> None:
        """Takes in a row of shape `(m,)`."""
        if self._n == len(self._levels):
            self._columns = np.concatenate([self._columns, np.empty_like(self._columns)], axis=1)
            self._levels = np.concatenate([self._levels, np.empty_like(self._levels)])
        self._columns[:, self._n] = row
        self._levels[self._n] = -1
        self._n += 1
        if not np.isnan(row).any():
            self._place(row)

    def _place(self, row: Array) -> None:
        """Ranks the row that came last."""
        columns, levels = self._columns[:, : self._n], self._levels[: self._n]
        above, below = columns[0] <= row[0], columns[0] >= row[0]
        for column, value in zip(columns[1:], row[1:], strict=True):
            above &= column <= value
            below &= column >= value
        equal = above & below
        level = int(levels[above ^ equal].max(initial=-1)) + 1
        levels[-1] = level
        self._push(np.flatnonzero(below ^ equal), level)

    def _push(self, dominated: Indices, level: int) -> None:
        """Moves rows from `level` on down, of those that the row that came last dominates."""
        levels = self._levels
        moved = dominated[levels[dominated] == level]
        while len(moved):
            level += 1
            below = dominated[levels[dominated] == level]
            levels[moved] = level
            moved = below[self._is_below(moved, below)]

    def _is_below(self, moved: Indices, others: Indices) -> NDArray[np.bool_]:
        """Which of `others`, all of a higher rank than `moved` had, one of `moved` dominates."""
        no_worse = np.ones((len(moved), len(others)), dtype=bool)
        for column in self._columns:
            no_worse &= column[moved][:, None] <= column[others][None, :]
        return np.asarray(no_worse.any(axis=0))
