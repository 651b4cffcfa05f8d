from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autopeft.objective.pareto import crowding, front, hypervolume, knee, ranks

Rows = list[list[int]]


@st.composite
def small_rows(draw: st.DrawFn, most: int = 8) -> Rows:
    """Up to `most` points on the grid 0..4 with one to four columns."""
    width = draw(st.integers(1, 4))
    row = st.lists(st.integers(0, 4), min_size=width, max_size=width)
    return draw(st.lists(row, min_size=1, max_size=most))


def dominates(a: list[int], b: list[int]) -> bool:
    return all(x <= y for x, y in zip(a, b, strict=True)) and a != b


def cells_dominated(rows: Rows, corner: int) -> int:
    """Counts unit cells, the definition of the volume of points on a grid."""
    cells = itertools.product(range(corner), repeat=len(rows[0]))
    return sum(
        any(all(r <= c for r, c in zip(row, cell, strict=True)) for row in rows) for cell in cells
    )


def ranks_by_definition(rows: Rows) -> list[int]:
    """The length of the longest chain of dominators."""
    chain = {}
    for i in sorted(range(len(rows)), key=lambda i: sum(rows[i])):
        chain[i] = max((chain[j] + 1 for j in chain if dominates(rows[j], rows[i])), default=0)
    return [chain[i] for i in range(len(rows))]


@given(small_rows())
def test_ranks_by_definition(rows: Rows) -> None:
    assert ranks(rows).tolist() == ranks_by_definition(rows)
    assert front(rows).tolist() == [not any(dominates(o, r) for o in rows) for r in rows]


@given(small_rows())
def test_hypervolume_by_definition(rows: Rows) -> None:
    width = len(rows[0])
    assert hypervolume(rows, [5] * width) == pytest.approx(cells_dominated(rows, 5))
    assert hypervolume(rows, [3] * width) == pytest.approx(cells_dominated(rows, 3))


@given(small_rows(), st.randoms(use_true_random=False))
def test_order_duplicates_and_scale_do_not_matter(rows: Rows, random: object) -> None:
    array = np.asarray(rows, dtype=float)
    width = array.shape[1]
    order = np.random.default_rng(random.randint(0, 99)).permutation(len(rows))  # type: ignore[attr-defined]
    volume, rank = hypervolume(array, [5.0] * width), ranks(array)
    assert hypervolume(array[order], [5.0] * width) == pytest.approx(volume)
    assert hypervolume(np.vstack([array, array]), [5.0] * width) == pytest.approx(volume)
    assert hypervolume(3 * array - 1, [14.0] * width) == pytest.approx(3.0**width * volume)
    assert (ranks(array[order]) == rank[order]).all()
    assert (ranks(np.vstack([array, array])) == np.tile(rank, 2)).all()
    assert (ranks(3 * array - 1) == rank).all()
    np.testing.assert_allclose(crowding(array[order]), crowding(array)[order])
    np.testing.assert_allclose(crowding(3 * array - 1), crowding(array))


@pytest.mark.parametrize("width", [2, 3, 4, 5])
def test_volume_of_a_linear_front(width: int) -> None:
    ends = 1.0 - np.eye(width)  # every end is 0 in one column and 1 in the others
    assert hypervolume(ends, [1.0] * width) == 0.0
    # n unit slabs: 2^n less the part that misses every slab
    assert hypervolume(ends, [2.0] * width) == pytest.approx(width + 1)
    assert hypervolume(np.zeros((1, width)), [2.0] * width) == pytest.approx(2.0**width)


def test_nan_and_infinite_rows() -> None:
    nan, inf = math.nan, math.inf
    rows = [[0, nan], [1, 1], [2, 2], [nan, nan], [0, inf]]
    assert ranks(rows).tolist() == [2, 0, 1, 2, 0]
    assert front(rows).tolist() == [False, True, False, False, True]
    assert front([[nan, 0]]).tolist() == [False]
    assert hypervolume(rows, [3, 3]) == 4
    assert hypervolume([[-inf, 0]], [1, 1]) == inf
    assert knee(rows) == 1
    assert knee([[nan, 1]]) is None
    assert crowding(rows)[0] == 0


def test_empty() -> None:
    assert ranks(np.empty((0, 2))).shape == (0,)
    assert hypervolume([], [1, 1]) == 0
    assert knee(np.empty((0, 3))) is None


def test_a_wrong_width_is_refused() -> None:
    with pytest.raises(ValueError, match="shape"):
        hypervolume([[1, 2, 3]], [1, 1])


def test_crowding_prefers_ends_and_gaps() -> None:
    distances = crowding([[0, 10], [1, 9], [2, 8], [6, 4], [10, 0]])
    assert distances[0] == distances[4] == math.inf
    assert distances[1] == pytest.approx(0.4)
    assert distances[1] < distances[2] < distances[3]


def test_the_knee_is_the_bend() -> None:
    rows = [[0, 100], [1, 20], [2, 15], [10, 0], [5, 50]]
    assert knee(rows) == 1
    assert knee([[1000 * a, b / 7] for a, b in rows]) == 1
    assert knee([[2, 2]]) == 0
