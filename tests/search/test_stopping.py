from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence

import pytest

from autopeft.core.errors import StudyError
from autopeft.core.report import Report
from autopeft.objective.objective import load_objectives
from autopeft.objective.pareto import front
from autopeft.search.stoppers import STOPPERS, Fidelity, make_stopper
from autopeft.search.stopping import (
    Curve,
    Decision,
    Stopper,
    SuccessiveHalving,
    rungs_between,
)
from tests.contracts import stopper as kit


@pytest.mark.parametrize("check", kit.CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", STOPPERS)
def test_contract(name: str, check: Callable[[kit.Make], None]) -> None:
    check(STOPPERS[name])


class Broken(Stopper):
    """Stops what another instance did not see first, whatever it is."""

    def __init__(self, fidelity: Fidelity) -> None:
        self.seen = 0

    def decide(self, curves: Sequence[Curve], current: Curve) -> Decision:
        self.seen += 1
        return Decision(self.seen == 1, "")


@pytest.mark.parametrize("check", kit.CHECKS, ids=lambda check: check.__name__)
def test_the_contract_finds_a_broken_stopper(check: Callable[[kit.Make], None]) -> None:
    with pytest.raises(AssertionError):
        check(Broken)


def at_rung(losses: Sequence[float], known: Sequence[float], rung: float = 1.0) -> list[Curve]:
    return [
        Curve(i, (k,), (Report(1, rung, {"validation_loss": v, "train_loss": -v}),))
        for i, (v, k) in enumerate(zip(losses, known, strict=True))
    ]


def going_on(stopper: Stopper, curves: Sequence[Curve]) -> list[int]:
    return [c.number for c in curves if stopper.decide(curves, c).goes_on]


def test_the_pareto_set_goes_on() -> None:
    """Four mutually non-dominated trials among twelve, one in three goes on: exactly these."""
    losses = [0.1, 0.2, 0.3, 0.4, 0.15, 0.25, 0.35, 0.45, 0.5, 0.6, 0.7, 0.8]
    known = [4.0, 3.0, 2.0, 1.0, 4.5, 3.5, 2.5, 1.5, 5.0, 5.0, 5.0, 5.0]
    curves = at_rung(losses, known)
    expected = [i for i, best in enumerate(front(list(zip(losses, known, strict=True)))) if best]
    assert expected == [0, 1, 2, 3]
    assert going_on(SuccessiveHalving((1, 3), 3), curves) == expected


def test_crowding_thins_a_large_front_and_keeps_its_ends() -> None:
    losses = [0.0, 1.0, 1.1, 1.2, 1.3, 9.0]
    curves = at_rung(losses, [9.0, 1.3, 1.2, 1.1, 1.0, 0.0])
    assert going_on(SuccessiveHalving((1, 3), 3), curves) == [0, 5]


def test_with_one_objective_it_is_plain_halving() -> None:
    curves = at_rung([0.5, 0.1, 0.4, 0.3, 0.2, 0.6], [0.0] * 6)
    assert going_on(SuccessiveHalving((1, 3), 3), curves) == [1, 4]
    assert going_on(SuccessiveHalving((1, 3), 2), curves) == [1, 3, 4]


def test_few_trials_go_on() -> None:
    curves = at_rung([0.5, 0.1], [1.0, 0.0])
    assert going_on(SuccessiveHalving((1, 3), 3), curves) == [0, 1]


def test_a_signal_that_is_not_finite_ranks_last() -> None:
    curves = at_rung([math.nan, 0.5, math.inf, 0.6, 0.7, 0.8], [0.0, 1, 0.0, 1, 1, 1])
    assert going_on(SuccessiveHalving((1, 3), 3), curves) == [1, 3]


def test_only_trials_at_the_same_rung_are_compared() -> None:
    late = at_rung([0.9, 0.8, 0.7], [0.0] * 3, rung=3.0)
    early = at_rung([0.1, 0.2, 0.3], [0.0] * 3)
    early = [Curve(c.number + 10, c.known, c.reports) for c in early]
    stopper = SuccessiveHalving((1, 3, 9), 3)
    assert going_on(stopper, [*early, *late]) == [10, 11, 2]


def test_three_rungs_in_simulated_time() -> None:
    """One trial after the other: most of the training is saved and the best survives."""
    table = kit.curves(60, seed=1)
    stopper, seen, spent = STOPPERS["halving"](kit.fidelity()), {}, 0.0
    for curve in table:
        for n in range(1, len(kit.RUNGS) + 1):
            seen[curve.number] = kit.until(curve, n)
            if not stopper.decide(list(seen.values()), seen[curve.number]).goes_on:
                break
        spent += seen[curve.number].reports[-1].fidelity
    assert spent < 0.5 * len(table) * kit.RUNGS[-1]
    losses = {c.number: c.reports[-1].metrics["validation_loss"] for c in table}
    best = min((n for n in losses if math.isfinite(losses[n])), key=lambda n: losses[n])
    assert len(seen[best].reports) == len(kit.RUNGS)


def test_the_signal() -> None:
    objectives = load_objectives("accuracy-params")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert SuccessiveHalving((1, 3), 3, objectives, n_validation=200).signal == (
            "validation_loss"
        )
    with pytest.warns(UserWarning, match="199 validation examples are too few"):
        tiny = SuccessiveHalving((1, 3), 3, objectives, n_validation=199)
    curves = at_rung([0.1, 0.2, 0.3], [0.0] * 3)
    assert going_on(tiny, curves) == [2]
    by_accuracy = SuccessiveHalving((1, 3), 3, objectives, signal="accuracy")
    accurate = [Curve(i, (), (Report(1, 1.0, {"accuracy": a}),)) for i, a in enumerate([1, 3, 2])]
    assert going_on(by_accuracy, accurate) == [1]
    with pytest.raises(StudyError, match=r"unknown metric 'acuracy'.*did you mean 'accuracy'"):
        going_on(SuccessiveHalving((1, 3), 3, signal="acuracy"), accurate)


def test_rungs_between() -> None:
    assert rungs_between(1, 9, 3) == (1, 3, 9)
    assert rungs_between(1, 10, 3) == (1, 3, 9, 10)
    assert rungs_between(0.1, 0.9, 3) == pytest.approx((0.1, 0.3, 0.9))
    assert rungs_between(3, 3, 2) == (3,)
    for bad in [(0, 3, 3), (3, 1, 3), (1, 3, 1)]:
        with pytest.raises(StudyError, match="fidelity"):
            rungs_between(*bad)


@pytest.mark.parametrize("rungs", [(), (3, 1), (1, 1), (0, 1)])
def test_bad_rungs(rungs: tuple[float, ...]) -> None:
    with pytest.raises(StudyError, match="ascend"):
        SuccessiveHalving(rungs, 3)


def test_bad_names_and_reductions() -> None:
    with pytest.raises(StudyError, match="above 1"):
        make_stopper("halving", Fidelity((1.0, 3.0), 1.0))
    with pytest.raises(StudyError, match=r"unknown stopper 'halve'.*did you mean 'halving'"):
        make_stopper("halve", Fidelity((1.0,)))


def test_brackets_let_slow_starters_pass_the_first_rungs() -> None:
    """With two brackets every second trial is compared from the second rung on."""
    stopper = SuccessiveHalving((1.0, 3.0, 9.0), 3.0, brackets=2)
    curves = at_rung([float(i) for i in range(9)], [0.0] * 9)
    assert going_on(stopper, curves) == [0, 1, 2, 3, 5, 7]
    later = [
        Curve(c.number, c.known, (*c.reports, Report(2, 3.0, dict(c.reports[0].metrics))))
        for c in curves
    ]
    assert going_on(stopper, later) == [0, 1, 2]
    reason = stopper.decide(curves, curves[7]).reason
    assert reason == "bracket 1 passes the first 1 rungs"


@pytest.mark.parametrize(("brackets", "rungs"), [(0, (1.0, 3.0)), (2, (1.0, 3.0)), (2, (1.0,))])
def test_brackets_leave_a_rung_to_compare_at(brackets: int, rungs: tuple[float, ...]) -> None:
    with pytest.raises(StudyError, match=r"fidelity.brackets: must be from 1 to 1, got"):
        SuccessiveHalving(rungs, 3.0, brackets=brackets)
