"""Successive halving with several objectives, asynchronous and synchronous."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np

from autopeft.core.errors import AutoPeftWarning, StudyError, unknown
from autopeft.objective.objective import Objective
from autopeft.objective.pareto import crowding
from autopeft.objective.ranking import Ranking
from autopeft.search.stopping import AtRungs, Curve, Decision, has_reached

TINY = 200
"""Below this many validation examples their loss says less than the training loss."""


class Halving(AtRungs):
    """At every rung but the last, one of some trials goes on: by rank, then by crowding.

    The rank is the non-dominated one on a signal of training and the known losses. A signal that is
    not finite ranks last.

    Args:
        rungs: fidelities at which trials are compared, ascending; the last is the end of training.
        reduction: one of how many goes on.
        objectives: of the study; a signal that is one of them keeps its direction and scale.
        signal: the metric to rank by; `auto` is `validation_loss`, and with a tiny validation set
            `train_loss`. A metric that is no objective is minimised.
        n_validation: how many validation examples there are, or None where that is not known.
        brackets: 1 compares all trials at all rungs; a trial of bracket b, from 0, passes the
            first b rungs uncompared, which spares some of those that start slowly.

    Raises:
        StudyError: rungs that do not ascend, a reduction of 1 or less, or brackets that leave
            no rung to compare at.
    """

    def __init__(
        self,
        rungs: Sequence[float],
        reduction: float,
        objectives: Sequence[Objective] = (),
        signal: str = "auto",
        n_validation: int | None = None,
        brackets: int = 1,
    ) -> None:
        super().__init__(rungs)
        if not reduction > 1:
            raise StudyError(f"must be a number above 1, got {reduction}", "fidelity.reduction")
        most = max(1, len(rungs) - 1)
        if not 1 <= brackets <= most:
            raise StudyError(f"must be from 1 to {most}, got {brackets}", "fidelity.brackets")
        self.brackets = brackets
        self.reduction = float(reduction)
        self.signal = _signal(n_validation) if signal == "auto" else signal
        self._objective = next((o for o in objectives if o.name == self.signal), None)
        self._standings: dict[float, _Standing] = {}

    def _judged(
        self, latest: Mapping[int, Curve], current: Curve, rung: float, least: float
    ) -> Decision:
        """Whether a trial is among the best at a rung; all are where there are below `least`."""
        standing = self._standings.get(rung)
        if standing is None or not standing.update(latest):
            standing = self._standings[rung] = _Standing(partial(self._row, rung))
            standing.update(latest)
        n, place = len(standing.ranking), standing.place(current.number)
        what = f"{place} of {n} at {rung:g} by {self.signal}"
        if n < least:
            return Decision(True, f"{what}; too few to compare")
        allowed = max(1, int(n / self.reduction + 1e-9))
        return Decision(place <= allowed, f"{what}; the first {allowed} go on")

    def _row(self, rung: float, curve: Curve) -> tuple[float, ...] | None:
        """What a curve is compared by at a rung; None before it."""
        signal = self._at(curve, rung)
        return None if signal is None else (signal, *curve.known)

    def _at(self, curve: Curve, rung: float) -> float | None:
        """The signal as a loss in the first report at or after the rung; None before it.

        Raises:
            StudyError: the reports do not hold the signal.
        """
        report = next((r for r in curve.reports if has_reached(r.fidelity, rung)), None)
        if report is None:
            return None
        if self.signal not in report.metrics:
            raise StudyError(unknown("metric", self.signal, report.metrics), "fidelity.signal")
        value = report.metrics[self.signal]
        loss = self._objective.loss(value) if self._objective else value
        return loss if math.isfinite(loss) else math.nan


class AsynchronousHalving(Halving):
    """Compares a trial that reaches a rung with all that have reached it before.

    While fewer than `reduction` have, all go on. The bracket of a trial is what its number divided
    by the number of brackets leaves over. Arguments are those of `Halving`.

    References:
        Schmucker et al., Multi-objective Asynchronous Successive Halving, 2021, algorithm 1;
        Li et al., Hyperband, 2018, section 3 (brackets).
    """

    def _compare(
        self, latest: Mapping[int, Curve], current: Curve, n_passed: int, closed: bool
    ) -> Decision:
        if n_passed <= (bracket := current.number % self.brackets):
            return _passes(bracket)
        return self._judged(latest, current, self.rungs[n_passed - 1], self.reduction)


class SynchronousHalving(Halving):
    """Compares a trial at a rung with those of its group, as soon as all of them are there.

    Groups are trials in the order of their start, `reduction^(rungs - 1)` in bracket 0; brackets
    take turns, and in those that compare later groups are smaller, so that all train about as
    much. A group that can no longer fill up is compared as it is, and one of it goes on in any
    case. Baselines belong to none. Arguments are those of `Halving`.

    References:
        Jamieson and Talwalkar, Non-stochastic Best Arm Identification and Hyperparameter
        Optimization, 2016; Li et al., Hyperband, 2018, algorithm 1 (size of groups).
    """

    def _compare(
        self, latest: Mapping[int, Curve], current: Curve, n_passed: int, closed: bool
    ) -> Decision:
        bracket, group, n_missing = self._group(latest, current.number)
        if n_passed <= bracket:
            return _passes(bracket)
        rung = self.rungs[n_passed - 1]
        n_early = sum(not c.ended and self._row(rung, c) is None for c in group.values())
        n_awaited = n_early + (0 if closed else n_missing)
        if n_awaited:
            return Decision(False, f"at {rung:g} until {n_awaited} more are there", waits=True)
        return self._judged(group, current, rung, 1)

    def _group(self, latest: Mapping[int, Curve], number: int) -> tuple[int, dict[int, Curve], int]:
        """The bracket of a trial, the group it belongs to, and how many that lacks."""
        numbers = sorted(n for n, curve in latest.items() if not curve.protected)
        place, bracket, end = numbers.index(number), -1, 0
        while end <= place:
            bracket = (bracket + 1) % self.brackets
            first, end = end, end + self._size(bracket)
        members = {n: latest[n] for n in numbers[first:end]}
        return bracket, members, end - first - len(members)

    def _size(self, bracket: int) -> int:
        """How many trials a group of a bracket has."""
        n_last = len(self.rungs) - 1
        n_compared = n_last - bracket
        share = (n_last + 1) / (n_compared + 1)
        return math.ceil(share * self.reduction**n_compared - 1e-9)


def _passes(bracket: int) -> Decision:
    return Decision(True, f"bracket {bracket} passes the first {bracket} rungs")


def _signal(n_validation: int | None) -> str:
    if n_validation is None or n_validation >= TINY:
        return "validation_loss"
    warnings.warn(
        f"{n_validation} validation examples are too few to stop by; "
        "trials are ranked by training loss",
        AutoPeftWarning,
        stacklevel=3,
    )
    return "train_loss"


class _Standing:
    """How those that have reached a rung rank; what is known of a curve is read once.

    Args:
        row: the signal and the known losses of a curve; None before the rung.
    """

    def __init__(self, row: Callable[[Curve], tuple[float, ...] | None]) -> None:
        self._row = row
        self._curves: dict[int, Curve] = {}
        self._places: dict[int, int] = {}
        self._losses: list[tuple[float, ...]] = []
        self.ranking = Ranking(0)

    def update(self, latest: Mapping[int, Curve]) -> bool:
        """Takes in what has changed; False where that is more than curves that have grown.

        Curves that do not rank may vanish, such as proposals that were rejected.
        """
        known = self._curves
        changed = [curve for n, curve in latest.items() if known.get(n) is not curve]
        for curve in changed:
            known[curve.number] = curve
            if not self._take(curve.number, self._row(curve)):
                return False
        return self._places.keys() <= latest.keys()

    def _take(self, number: int, row: tuple[float, ...] | None) -> bool:
        """Whether a row is new or what it was."""
        place = self._places.get(number)
        if place is not None:
            return row is not None and repr(row) == repr(self._losses[place])
        if row is not None:
            if not self._places:
                self.ranking = Ranking(len(row))
            self._places[number] = len(self._losses)
            self._losses.append(row)
            self.ranking.add(np.array(row, dtype=np.float64))
        return True

    def place(self, number: int) -> int:
        """The place from 1: by rank, crowding within it, signal, and number."""
        ranks, index = self.ranking.ranks, self._places[number]
        peers = np.flatnonzero(ranks == ranks[index])
        rows, numbers = self.ranking.rows[peers], np.array(list(self._places))[peers]
        signal = np.nan_to_num(rows[:, 0], nan=np.inf)
        order = peers[np.lexsort([numbers, signal, -crowding(rows)])]
        before = np.count_nonzero(ranks < ranks[index]) + np.flatnonzero(order == index)
        return int(before.item()) + 1
