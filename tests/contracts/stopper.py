"""What every stopper owes an engine; run over the whole registry."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from autopeft.core.report import Report
from autopeft.objective.objective import load_objectives
from autopeft.search.stoppers import Fidelity
from autopeft.search.stopping import Curve, Stopper

Make = Callable[[Fidelity], Stopper]

RUNGS = (1.0, 3.0, 9.0)


def fidelity() -> Fidelity:
    """Three rungs of which one in three trials passes each."""
    return Fidelity(RUNGS, 3.0, load_objectives("accuracy-params"))


def curves(n: int = 24, seed: int = 0) -> list[Curve]:
    """Tabulated learning curves: bigger trials end lower; two are diverged, one is a baseline."""
    rng = np.random.default_rng(seed)
    table = []
    for number in range(n):
        size = float(rng.uniform(0, 6))
        end = 0.5 - 0.05 * size + float(rng.uniform(0, 0.2))
        losses = [end + 0.4 / (1 + rung) for rung in RUNGS]
        if number % 11 == 5:
            losses = [math.nan] * len(RUNGS)
        reports = [
            Report(int(10 * r), r, {"validation_loss": v, "train_loss": v, "accuracy": 1 - v})
            for r, v in zip(RUNGS, losses, strict=True)
        ]
        table.append(Curve(number, (size,), tuple(reports), protected=number == 3))
    return table


def until(curve: Curve, n_reports: int) -> Curve:
    """A curve as it was after its first reports."""
    return replace(curve, reports=curve.reports[:n_reports])


def check_protected(make: Make) -> None:
    """Baselines and trials at the end are never stopped, nor is anything before the first rung."""
    stopper, table = make(fidelity()), curves()
    for curve in table:
        early = Curve(curve.number, curve.known, (Report(1, 0.5, {"validation_loss": 9.0}),))
        assert stopper.decide(table, early).goes_on
        assert stopper.decide(table, until(curve, 0)).goes_on
        assert stopper.decide(table, curve).goes_on
    worst = [Curve(c.number, c.known, c.reports, protected=True) for c in table]
    assert all(stopper.decide(worst, until(curve, 1)).goes_on for curve in worst)


def check_pure(make: Make) -> None:
    """The order of the curves, earlier decisions and the instance do not matter."""
    stopper, table = make(fidelity()), [until(curve, 2) for curve in curves()]
    decisions = [stopper.decide(table, curve) for curve in table]
    assert decisions == [stopper.decide(table[::-1], curve) for curve in table]
    assert decisions == [make(fidelity()).decide(table, curve) for curve in table]
    others = [[c for c in table if c.number != curve.number] for curve in table]
    assert decisions == [
        stopper.decide(rest, curve) for rest, curve in zip(others, table, strict=True)
    ]


def check_keeps_the_best(make: Make) -> None:
    """A trial that dominates all others goes on; the first ever goes on."""
    stopper, table = make(fidelity()), [until(curve, 1) for curve in curves()]
    reports = (Report(10, 1.0, {"validation_loss": 0.0, "train_loss": 0.0, "accuracy": 1.0}),)
    best = Curve(99, (-1.0,), reports)
    for seen, current in (([*table, best], best), ([best], best), ([], table[0])):
        assert stopper.decide(seen, current, closed=True).goes_on
        decision = stopper.decide(seen, current)
        assert decision.goes_on or decision.waits


def check_says_why(make: Make) -> None:
    """Every decision has a reason."""
    stopper, table = make(fidelity()), [until(curve, 1) for curve in curves()]
    assert all(stopper.decide(table, curve).reason for curve in table)


def simulated(stopper: Stopper, table: list[Curve]) -> list[Curve]:
    """How far each trial comes where one after the other starts and nobody waits for longer."""
    seen: dict[int, Curve] = {}

    def train(whole: Curve, closed: bool) -> None:
        """From rung to rung, until it pauses or ends."""
        n = len(seen[whole.number].reports)
        while True:
            decision = stopper.decide(list(seen.values()), seen[whole.number], closed)
            assert not (decision.waits and decision.goes_on)
            if not decision.goes_on or n == len(RUNGS):
                ended = not decision.waits
                seen[whole.number] = replace(seen[whole.number], ended=ended)
                return
            n += 1
            seen[whole.number] = until(whole, n)

    def resume(closed: bool) -> None:
        for curve in table:
            if curve.number in seen and not seen[curve.number].ended:
                train(curve, closed)

    for whole in table:
        seen[whole.number] = until(whole, 0)
        train(whole, False)
        resume(False)
    for _ in RUNGS:
        resume(True)
    return list(seen.values())


def check_ends(make: Make) -> None:
    """Only a stopper that says so lets trials wait, and none once all others have ended."""
    ends = simulated(make(fidelity()), curves())
    assert all(curve.ended for curve in ends)
    assert any(len(curve.reports) == len(RUNGS) for curve in ends if not curve.protected)


CHECKS = (check_protected, check_pure, check_keeps_the_best, check_says_why, check_ends)
