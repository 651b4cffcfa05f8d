"""What curves promise, and in how much doubt."""

from __future__ import annotations

import math

import numpy as np
import pytest

from autopeft.core.report import Report
from autopeft.objective.objective import Objective
from autopeft.search.promise import N_ENOUGH, Promises, curve_of

LOSS = Objective("error", "minimize")
NAN = math.nan


def curve(*losses: float) -> dict[float, tuple[float, ...]]:
    """A curve of the objective alone, at fidelities from 1."""
    return {float(i + 1): (loss, NAN, NAN) for i, loss in enumerate(losses)}


def promised(pairs: list[tuple[float, float]], last: float) -> tuple[float, float]:
    """What a trial promises that was stopped at fidelity 1, after others that were not."""
    curves = [curve(early, final) for early, final in pairs]
    stopped = curve(last)
    return Promises([*curves, stopped], [*(final for _, final in pairs), NAN])(stopped)


@pytest.mark.parametrize(
    ("pairs", "last", "end"),
    [
        ([], 0.6, 0.6),
        ([(0.4, 0.2)], 0.5, 0.3),
        ([(0.5, 0.2), (0.4, 0.15), (0.3, 0.1)], 0.6, 0.25),
        ([(0.5, 0.1), (0.4, 0.2), (0.3, 0.3)], 0.6, 0.2),
        ([(0.4, 0.1), (0.4, 0.2), (0.4, 0.3)], 0.6, 0.4),
    ],
    ids=["nothing", "one", "flatter", "falling", "all alike"],
)
def test_a_line_tells_the_end(pairs: list[tuple[float, float]], last: float, end: float) -> None:
    assert promised(pairs, last)[0] == pytest.approx(end)


def test_few_pairs_mean_much_doubt() -> None:
    """On a line without a stray the doubt falls from more than the spread of all to nearly none."""
    doubts = []
    for n in (0, 1, 2, 3, 5, 10, 40):
        early = [0.3 + 0.2 * (i % 3) for i in range(n)]
        known = [(loss, loss - 0.1) for loss in early]
        curves = [*(curve(*pair) for pair in known), curve(0.5), curve(0.1)]
        finals = [*(final for _, final in known), NAN, NAN]
        latest = [*(final for _, final in known), 0.5, 0.1]
        _, doubt = Promises(curves, finals)(curves[-2])
        doubts.append(doubt / np.var(latest, ddof=1))
    assert min(doubts[:2]) > 1
    assert doubts == sorted(doubts, reverse=True)
    assert 0 < doubts[-1] < 0.05


def test_of_many_pairs_the_doubt_is_that_of_a_line() -> None:
    """Against the textbook: residual variance, and what the line's own parameters add."""
    rng = np.random.default_rng(0)
    early = rng.random(400)
    final = 0.5 * early + rng.normal(0, 0.1, 400)
    promises = Promises([curve(loss) for loss in early.tolist()], final.tolist())
    (_, inside), (_, outside) = promises(curve(0.5)), promises(curve(30.0))
    slope, at = np.polyfit(early, final, 1)
    residual = ((final - slope * early - at) ** 2).sum() / 398
    assert inside == pytest.approx(residual * (1 + 1 / 400), rel=0.03)
    extent = ((early - early.mean()) ** 2).sum()
    assert outside / inside == pytest.approx(1 + (30 - early.mean()) ** 2 / extent, rel=0.03)


@pytest.mark.parametrize("n", [2, 3, 5, 20])
def test_doubts_are_neither_too_small_nor_without_bound(n: int) -> None:
    """Over many draws the true end is within twice the deviation about as often as it should be."""
    rng = np.random.default_rng(n)
    strays = []
    for _ in range(300):
        early = rng.normal(0.5, 0.1, n + 1)
        final = early - 0.2 + rng.normal(0, 0.05, n + 1)
        value, doubt = promised(
            list(zip(early[:n].tolist(), final[:n].tolist(), strict=True)), float(early[n])
        )
        strays.append((value - final[n]) / doubt**0.5)
    assert 0.9 < np.mean(np.abs(strays) < 2) <= 1
    assert 0.3 < np.std(strays) < 1.3


def test_a_training_loss_that_tells_more_is_believed_once_there_are_enough() -> None:
    def promise(n: int) -> float:
        rng = np.random.default_rng(1)
        rows = rng.random((n + 1, 2))
        curves = [{1.0: (noise, final, NAN)} for noise, final in rows.tolist()]
        return Promises(curves, [*rows[:n, 1].tolist(), NAN])(curves[-1])[0] - float(rows[n, 1])

    assert abs(promise(4 * N_ENOUGH)) < 0.02
    assert abs(promise(N_ENOUGH - 1)) > 0.1


def test_what_tells_nothing_promises_nothing() -> None:
    told = Promises([curve(0.5, 0.4)], [0.4])
    assert told({}) == pytest.approx((NAN, 0.0), nan_ok=True)
    assert told(curve(NAN)) == pytest.approx((NAN, 0.0), nan_ok=True)


def test_curves_hold_losses() -> None:
    reports = [Report(5, 1.0, {"accuracy": 0.8, "train_loss": 0.3}), Report(9, 3.0, {})]
    found = curve_of(reports, Objective("accuracy", "maximize"))
    assert str(found) == str({1.0: (-0.8, NAN, 0.3), 3.0: (NAN, NAN, NAN)})


def test_where_trials_begin_far_from_their_ends_that_alone_leaves_no_doubt() -> None:
    """Once there are enough ends, it is they whose spread counts, not that of early losses."""
    pairs = [(0.8 + 0.01 * i, 0.2 + 0.01 * i) for i in range(N_ENOUGH)]
    assert promised(pairs, 0.82)[1] < 2 * np.var([final for _, final in pairs])
    assert promised(pairs[:-1], 0.82)[1] > 20 * np.var([final for _, final in pairs])
