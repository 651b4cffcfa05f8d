from __future__ import annotations

import math

import numpy as np
import pytest

from autopeft.core.config import PeftConfig, Placement
from autopeft.core.errors import AttachError
from autopeft.objective.known import KnownLosses, estimate
from autopeft.objective.objective import load_objectives
from autopeft.objective.quantity import Known


def config(r: int) -> PeftConfig:
    return PeftConfig.of([Placement.of("lora", [0], {"r": r})])


class Counter:
    """A cost that counts how often it is asked for."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, config: PeftConfig) -> float:
        self.asked += 1
        r = config.placements[0]["r"]
        if r == 13:
            raise AttachError("does not fit")
        return float(10**r - 1)


def test_every_value_is_computed_once() -> None:
    params = Counter()
    known = KnownLosses(load_objectives("accuracy-params"), {"trainable_params": Known(params)}, {})
    assert (known.exact, known.learned, known.cheapest) == ([1], [0], 1)
    assert [known.loss(1, config(3)) for _ in range(3)] == pytest.approx([3, 3, 3])
    assert params.asked == 1
    assert known.row(config(2), [math.nan, 7.0]) == [7.0]
    assert params.asked == 1
    assert known.row(config(2), [math.nan, math.nan]) == pytest.approx([2.0])


def test_limits_and_configurations_that_do_not_fit() -> None:
    memory = Counter()
    known = {"trainable_params": Known(Counter()), "peak_memory": Known(memory, slow=True)}
    limits = {"trainable_params": 99999.0, "peak_memory": 9999.0}
    losses = KnownLosses(load_objectives("accuracy-params"), known, limits)
    configs = [config(r) for r in (3, 4, 5, 6, 13)]
    assert [c for c in configs if losses.allows(c, slow=False)] == configs[:3]
    assert memory.asked == 0
    assert [c for c in configs if losses.allows(c, slow=True)] == configs[:2]
    assert memory.asked == 3
    assert math.isnan(losses.loss(1, config(13)))
    without = KnownLosses(load_objectives("accuracy-params"), known, {})
    assert [c for c in configs if without.allows(c, slow=True)] == configs[:4]
    assert memory.asked == 3


def test_what_is_not_a_number_keeps_no_limit() -> None:
    for limits in ({}, {"peak_memory": math.inf}, {"peak_memory": 1e9}):
        known = {"peak_memory": Known(lambda config: math.nan, slow=True)}
        losses = KnownLosses(load_objectives("accuracy-params-memory"), known, limits)
        assert not losses.allows(config(2), slow=True)


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autopeft.objective.known.N_REMEMBERED", 3)
    params = Counter()
    known = KnownLosses(load_objectives("accuracy-params"), {"trainable_params": Known(params)}, {})
    for r in (1, 2, 3, 4, 1):
        assert known.loss(1, config(r)) == pytest.approx(r)
    assert params.asked == 5


def test_an_objective_that_cannot_be_computed_is_learned() -> None:
    objectives = load_objectives("accuracy-params-memory")
    known = KnownLosses(objectives, {"trainable_params": Known(Counter(), slow=True)}, {})
    assert (known.exact, known.learned, known.cheapest) == ([1], [0, 2], None)


def test_slow_losses_are_guessed_from_the_history() -> None:
    params, rows = Counter(), np.array([[1.0], [3.0], [2.0], [4.0]])
    slow = KnownLosses(
        load_objectives("accuracy-params"), {"trainable_params": Known(params, slow=True)}, {}
    )
    found = slow.guess([config(2), config(4)], rows[:2], np.array([[1.0], [3.0]]), rows[2:])
    np.testing.assert_allclose(found[:, 0], [2, 4], atol=0.01)
    assert params.asked == 0


def test_an_estimate_is_taken_and_what_does_not_fit_is_infinite() -> None:
    params, rows = Counter(), np.array([[1.0], [2.0]])
    known = Known(params, slow=True, estimate=Counter())
    losses = KnownLosses(load_objectives("accuracy-params"), {"trainable_params": known}, {})
    assert not losses.is_guessed(1)
    found = losses.guess([config(2), config(13)], rows[:0], np.empty((0, 1)), rows)
    assert found[:, 0].tolist() == [2.0, math.inf]
    assert params.asked == 0


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
