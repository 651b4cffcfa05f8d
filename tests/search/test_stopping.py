from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from autopeft.core.errors import StudyError
from autopeft.core.report import Report
from autopeft.objective.objective import load_objectives
from autopeft.objective.pareto import front
from autopeft.search.halving import AsynchronousHalving, SynchronousHalving
from autopeft.search.stoppers import STOPPERS, Fidelity, make_stopper
from autopeft.search.stopping import (
    Curve,
    Decision,
    Stopper,
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

    def decide(self, curves: Sequence[Curve], current: Curve, closed: bool = False) -> Decision:
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
    assert going_on(AsynchronousHalving((1, 3), 3), curves) == expected


def test_crowding_thins_a_large_front_and_keeps_its_ends() -> None:
    losses = [0.0, 1.0, 1.1, 1.2, 1.3, 9.0]
    curves = at_rung(losses, [9.0, 1.3, 1.2, 1.1, 1.0, 0.0])
    assert going_on(AsynchronousHalving((1, 3), 3), curves) == [0, 5]


def test_with_one_objective_it_is_plain_halving() -> None:
    curves = at_rung([0.5, 0.1, 0.4, 0.3, 0.2, 0.6], [0.0] * 6)
    assert going_on(AsynchronousHalving((1, 3), 3), curves) == [1, 4]
    assert going_on(AsynchronousHalving((1, 3), 2), curves) == [1, 3, 4]


def test_few_trials_go_on() -> None:
    curves = at_rung([0.5, 0.1], [1.0, 0.0])
    assert going_on(AsynchronousHalving((1, 3), 3), curves) == [0, 1]


def test_a_signal_that_is_not_finite_ranks_last() -> None:
    curves = at_rung([math.nan, 0.5, math.inf, 0.6, 0.7, 0.8], [0.0, 1, 0.0, 1, 1, 1])
    assert going_on(AsynchronousHalving((1, 3), 3), curves) == [1, 3]


def test_only_trials_at_the_same_rung_are_compared() -> None:
    late = at_rung([0.9, 0.8, 0.7], [0.0] * 3, rung=3.0)
    early = at_rung([0.1, 0.2, 0.3], [0.0] * 3)
    early = [Curve(c.number + 10, c.known, c.reports) for c in early]
    stopper = AsynchronousHalving((1, 3, 9), 3)
    assert going_on(stopper, [*early, *late]) == [10, 11, 2]


@pytest.mark.parametrize("name", ["halving", "synchronous_halving"])
def test_three_rungs_in_simulated_time(name: str) -> None:
    """One trial after the other: most of the training is saved and the best survives."""
    table = kit.curves(60, seed=1)
    seen = {c.number: c for c in kit.simulated(STOPPERS[name](kit.fidelity()), table)}
    spent = sum(curve.reports[-1].fidelity for curve in seen.values())
    assert spent < 0.5 * len(table) * kit.RUNGS[-1]
    losses = {c.number: c.reports[-1].metrics["validation_loss"] for c in table}
    best = min((n for n in losses if math.isfinite(losses[n])), key=lambda n: losses[n])
    assert len(seen[best].reports) == len(kit.RUNGS)


def test_the_signal() -> None:
    objectives = load_objectives("accuracy-params")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert AsynchronousHalving((1, 3), 3, objectives, n_validation=200).signal == (
            "validation_loss"
        )
    with pytest.warns(UserWarning, match="199 validation examples are too few"):
        tiny = AsynchronousHalving((1, 3), 3, objectives, n_validation=199)
    curves = at_rung([0.1, 0.2, 0.3], [0.0] * 3)
    assert going_on(tiny, curves) == [2]
    by_accuracy = AsynchronousHalving((1, 3), 3, objectives, signal="accuracy")
    accurate = [Curve(i, (), (Report(1, 1.0, {"accuracy": a}),)) for i, a in enumerate([1, 3, 2])]
    assert going_on(by_accuracy, accurate) == [1]
    with pytest.raises(StudyError, match=r"unknown metric 'acuracy'.*did you mean 'accuracy'"):
        going_on(AsynchronousHalving((1, 3), 3, signal="acuracy"), accurate)


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
        AsynchronousHalving(rungs, 3)


def test_bad_names_and_reductions() -> None:
    with pytest.raises(StudyError, match="above 1"):
        make_stopper("halving", Fidelity((1.0, 3.0), 1.0))
    with pytest.raises(StudyError, match=r"unknown stopper 'halve'.*did you mean 'halving'"):
        make_stopper("halve", Fidelity((1.0,)))


def test_brackets_let_slow_starters_pass_the_first_rungs() -> None:
    """With two brackets every second trial is compared from the second rung on."""
    stopper = AsynchronousHalving((1.0, 3.0, 9.0), 3.0, brackets=2)
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
        AsynchronousHalving(rungs, 3.0, brackets=brackets)


def synchronous(brackets: int = 1) -> SynchronousHalving:
    return SynchronousHalving((1.0, 3.0, 9.0), 3.0, brackets=brackets)


def test_a_group_is_compared_when_all_of_it_are_there() -> None:
    curves = at_rung([float(i) for i in range(9)], [0.0] * 9)
    stopper = synchronous()
    waiting = stopper.decide(curves[:8], curves[0])
    assert (waiting.goes_on, waiting.waits) == (False, True)
    assert waiting.reason == "at 1 until 1 more are there"
    early = [*curves[:8], Curve(8)]
    assert stopper.decide(early, curves[0]).waits
    assert going_on(stopper, curves) == [0, 1, 2]
    assert not any(stopper.decide(curves, c).waits for c in curves)


def test_a_group_does_not_wait_for_what_has_ended_or_will_not_come() -> None:
    curves = at_rung([float(i) for i in range(8)], [0.0] * 8)
    seen = [*curves, Curve(8, ended=True)]
    assert synchronous().decide(seen, curves[1]).goes_on
    assert synchronous().decide(seen, curves[2]).reason == (
        "3 of 8 at 1 by validation_loss; the first 2 go on"
    )
    assert synchronous().decide(curves[:5], curves[0], closed=True).goes_on
    assert not synchronous().decide(curves[:5], curves[1], closed=True).goes_on
    still = synchronous().decide([*curves[:5], Curve(5)], curves[0], closed=True)
    assert still.waits


def test_groups_are_compared_by_themselves() -> None:
    """The second group is worse than the first, yet three of it go on; baselines are in none."""
    losses = [*range(9), *range(20, 29)]
    curves = at_rung([float(loss) for loss in losses], [0.0] * 18)
    assert going_on(synchronous(), curves) == [0, 1, 2, 9, 10, 11]
    numbered = [replace(c, number=c.number + 2) for c in curves]
    baselines = [Curve(n, (0.0,), curves[0].reports, protected=True) for n in (0, 5)]
    with_holes = [replace(c, number=c.number + (c.number >= 5)) for c in numbered]
    assert going_on(synchronous(), [*with_holes, *baselines]) == [
        *(with_holes[i].number for i in (0, 1, 2, 9, 10, 11)),
        0,
        5,
    ]


def test_nine_three_one() -> None:
    """What one group trains: all to the first rung, three to the second, one to the end."""
    table = [c for c in kit.curves(30, seed=2) if not c.protected][:9]
    ends = kit.simulated(synchronous(), table)
    assert sorted(len(curve.reports) for curve in ends) == [1] * 6 + [2] * 2 + [3]


def test_sizes_of_brackets_are_those_of_hyperband() -> None:
    """Hyperband with R = 9 and a reduction of 3 has brackets of 9, 5 and 3 trials."""
    stopper = synchronous(brackets=2)
    curves = at_rung([float(i) for i in range(28)], [0.0] * 28)
    assert going_on(stopper, curves) == [0, 1, 2, *range(9, 14), 14, 15, 16, *range(23, 28)]
    later = [
        Curve(c.number, c.known, (*c.reports, Report(2, 3.0, dict(c.reports[0].metrics))))
        for c in curves
    ]
    assert going_on(stopper, later[:14]) == [0, 1, 2, 9]


def test_one_of_a_group_goes_on_in_any_case() -> None:
    curves = at_rung([math.nan] * 9, [0.0] * 9)
    assert going_on(synchronous(), curves) == [0, 1, 2]
    alone = at_rung([math.nan], [0.0])
    assert synchronous().decide(alone, alone[0], closed=True).goes_on


def test_a_proposal_that_vanishes_changes_nothing() -> None:
    """Another process was about to start it and rejected it; it is not compared, nor is a rank."""
    stopper = AsynchronousHalving((1.0, 3.0), 3.0)
    curves = at_rung([float(i) for i in range(9)], [0.0] * 9)
    before = [stopper.decide([*curves, Curve(9)], curve) for curve in curves]
    standing = stopper._standings[1.0]
    assert [stopper.decide(curves, curve) for curve in curves] == before
    assert stopper._standings[1.0] is standing
    gone = [c for c in curves if c.number]
    assert stopper.decide(gone, gone[0]).reason.startswith("1 of 8 ")
