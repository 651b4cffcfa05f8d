from __future__ import annotations

import numpy as np

from autopeft.search.known import estimate


def test_sums_of_effects_are_found() -> None:
    rng = np.random.default_rng(0)
    rows, effects = rng.random((40, 6)), rng.normal(size=6)
    found = estimate(rows[:30], rows[:30] @ effects + 3, rows[30:])
    np.testing.assert_allclose(found, rows[30:] @ effects + 3, atol=0.01)


def test_values_that_are_not_finite_do_not_count() -> None:
    rows = np.array([[0.0], [1.0], [0.5]])
    found = estimate(rows, np.array([1.0, 2.0, np.nan]), rows)
    np.testing.assert_allclose(found, [1, 2, 1.5], atol=0.01)


def test_without_values_all_are_alike() -> None:
    assert estimate(np.empty((0, 2)), np.empty(0), np.ones((3, 2))).tolist() == [0, 0, 0]
