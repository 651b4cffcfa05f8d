from __future__ import annotations

import numpy as np
import pytest

from autopeft.search.surrogate import Surrogate


def problem(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features, and losses of two main effects and one of a pair."""
    rows = np.random.default_rng(seed).random((n, 6))
    return rows, 3 + rows[:, 0] - 2 * rows[:, 1] + 2 * rows[:, 2] * rows[:, 3]


def fitted(n: int, noise: float = 0.0, doubt: float = 0.0) -> Surrogate:
    rows, losses = problem(n)
    losses = losses + noise * np.random.default_rng(9).standard_normal(n)
    return Surrogate(rows, losses, np.full(n, doubt))


def test_effects_and_pairs_of_them_are_learned_from_few_points() -> None:
    rows, losses = problem(200, seed=1)
    means, variances = fitted(40)(rows)
    assert ((means - losses) ** 2).mean() < 0.02 * losses.var()
    assert (np.abs(means - losses) < 4 * np.sqrt(variances)).mean() > 0.95


def test_noise_is_found() -> None:
    assert fitted(120, noise=0.3).noise == pytest.approx(0.09, rel=0.35)
    assert fitted(120, noise=0.3).noise > 10 * fitted(120).noise


def test_doubtful_losses_count_less() -> None:
    rows, losses = problem(30)
    wrong = losses.copy()
    wrong[:10] += 5
    doubts = np.where(np.arange(30) < 10, 25.0, 0.0)
    query, wanted = problem(100, seed=1)

    def error(doubts: np.ndarray) -> float:
        means, _ = Surrogate(rows, wrong, doubts)(query)
        return float(np.abs(means - wanted).mean())

    assert error(doubts) < 0.5 * error(np.zeros(30))


def test_belief_leaves_the_means_and_takes_the_doubt_at_pending_points() -> None:
    model, (rows, _) = fitted(15), problem(40, seed=1)
    believing = model.believing(rows[:3])
    means, variances = model(rows)
    np.testing.assert_allclose(believing(rows)[0], means, atol=1e-5)
    assert (believing(rows[:3])[1] < variances[:3]).all()
    assert model.believing(rows[:0]) is model


@pytest.mark.parametrize("losses", [[1.0, 1.0, 1.0], [0.0, 1e-9, 2e-9], [1e6, 2e6, 1e6]])
def test_any_scale_and_no_spread_at_all(losses: list[float]) -> None:
    rows = np.array([[0.0, 1.0], [0.5, 1.0], [1.0, 1.0]])
    means, variances = Surrogate(rows, np.array(losses), np.zeros(3))(rows)
    assert np.isfinite(means).all()
    assert (variances >= 0).all()
    assert (np.abs(means - losses) <= np.ptp(losses) + 1e-3 * np.abs(losses).max() + 1e-9).all()


def test_equal_data_give_equal_numbers() -> None:
    rows, _ = problem(5, seed=1)
    first, second = fitted(25)(rows), fitted(25)(rows)
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])
