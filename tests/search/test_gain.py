from __future__ import annotations

import warnings

import numpy as np
import pytest

from autopeft.objective.pareto import hypervolume
from autopeft.search.gain import expected_gain


def points(n: int, m: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((n, m))


@pytest.mark.parametrize("m", [1, 2, 3, 4])
@pytest.mark.parametrize("n", [0, 1, 12])
def test_of_exact_losses_it_is_the_hypervolume_that_they_add(n: int, m: int) -> None:
    front, corner = points(n, m), np.full(m, 0.9)
    candidates = np.vstack([points(20, m, seed=1), np.zeros(m)])
    before = hypervolume(front, corner)
    wanted = [hypervolume([*front, row], corner) - before for row in candidates]
    found = expected_gain(front, corner, candidates, np.zeros_like(candidates))
    np.testing.assert_allclose(found, wanted, atol=1e-12)
    assert max(wanted) > 0


@pytest.mark.parametrize("uncertain", [[0.2, 0.0], [0.2, 0.1], [0.0, 0.3, 0.1]])
def test_of_uncertain_losses_it_is_the_mean(uncertain: list[float]) -> None:
    m, rng = len(uncertain), np.random.default_rng(2)
    front, corner, means = points(8, m), np.ones(m), points(3, m, seed=3)
    before, deviations = hypervolume(front, corner), np.tile(uncertain, (3, 1))
    found = expected_gain(front, corner, means, deviations)
    for mean, gain in zip(means, found, strict=True):
        drawn = mean + uncertain * rng.standard_normal((4000, m))
        added = np.array([hypervolume([*front, row], corner) - before for row in drawn])
        assert gain == pytest.approx(added.mean(), abs=4 * added.std() / np.sqrt(len(added)))


def test_of_one_objective_it_is_the_expected_improvement() -> None:
    """With the mean at the best loss it is the deviation over the root of two pi."""
    found = expected_gain(
        np.array([[0.5], [0.7]]), np.ones(1), np.full((1, 1), 0.5), np.ones((1, 1))
    )
    assert found[0] == pytest.approx(1 / np.sqrt(2 * np.pi))


def test_what_is_beyond_the_corner_or_no_number_does_not_count() -> None:
    corner, candidates = np.ones(2), points(5, 2)
    wanted = expected_gain(np.array([[0.5, 0.5]]), corner, candidates, np.zeros((5, 2)))
    more = np.array([[0.5, 0.5], [2.0, 0.1], [np.nan, 0.1], [0.6, 0.6]])
    np.testing.assert_allclose(expected_gain(more, corner, candidates, np.zeros((5, 2))), wanted)
    assert expected_gain(more, corner, np.array([[1.5, 0.0]]), np.zeros((1, 2))) == 0
    unfit, deviations = np.array([[0.1, np.inf]]), np.array([[0.1, 0.0]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert expected_gain(more, corner, unfit, deviations) == 0
