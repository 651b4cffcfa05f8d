"""Early stopping with several objectives: which trials are worth training on."""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np

from autopeft.core.config import PeftConfig
from autopeft.core.errors import StudyError, unknown
from autopeft.core.report import Report
from autopeft.objective.objective import Objective
from autopeft.objective.pareto import crowding
from autopeft.objective.ranking import Ranking

TINY = 200
"""Below this many validation examples their loss says less than the training loss."""


@dataclass(frozen=True)
class Curve:
    """One trial as a stopper sees it.

    Attributes:
        number: of the trial.
        known: losses of the known objectives, in the same order for all curves of a study.
        reports: the learning curve so far, in the order of training.
        protected: whether the trial is never stopped, as baselines are not.
        config: of the trial; None where a stopper is not to look at it.
    """

    number: int
    known: tuple[float, ...] = ()
    reports: tuple[Report, ...] = ()
    protected: bool = False
    config: PeftConfig | None = None


@dataclass(frozen=True)
class Decision:
    """Whether a trial goes on, and why, as a sentence for the record."""

    goes_on: bool
    reason: str


class Stopper(ABC):
    """Decides at every report whether a trial goes on.

    A decision is a pure function of its arguments and does not depend on the order of the curves.
    """

    @abstractmethod
    def decide(self, curves: Sequence[Curve], current: Curve) -> Decision:
        """The decision about `current`; `curves` are all trials with reports, itself included."""


class Never(Stopper):
    """Trains every trial to its end."""

    def decide(self, curves: Sequence[Curve], current: Curve) -> Decision:
        """Always goes on."""
        return Decision(True, "nothing is stopped")


class AtRungs(Stopper):
    """Compares trials where they reach a rung, but for baselines and at the end of training.

    Args:
        rungs: fidelities, ascending; the last is the end of training.

    Raises:
        StudyError: rungs that do not ascend.
    """

    def __init__(self, rungs: Sequence[float]) -> None:
        if not rungs or rungs[0] <= 0 or any(a >= b for a, b in pairwise(rungs)):
            raise StudyError(f"rungs must be positive and ascend, got {list(rungs)}", "fidelity")
        self.rungs = tuple(float(rung) for rung in rungs)

    def decide(self, curves: Sequence[Curve], current: Curve) -> Decision:
        """Goes on or stops at the rung that the last report has reached."""
        fidelity = current.reports[-1].fidelity if current.reports else 0.0
        passed = [rung for rung in self.rungs if has_reached(fidelity, rung)]
        if not passed:
            return Decision(True, "before the first rung")
        if passed[-1] == self.rungs[-1]:
            return Decision(True, "at the last rung")
        if current.protected:
            return Decision(True, "baselines are trained to the end")
        return self._compare(curves, current, len(passed))

    @abstractmethod
    def _compare(self, curves: Sequence[Curve], current: Curve, n_passed: int) -> Decision:
        """The decision where a trial has passed so many rungs, not all."""


class SuccessiveHalving(AtRungs):
    """Asynchronous successive halving on the non-dominated rank.

    At every rung but the last a trial goes on if it is among the best `1 / reduction` of all that
    have reached the rung, by rank on the signal and the known losses, then by crowding. While
    fewer than `reduction` have reached the rung, all go on. A signal that is not finite ranks last.

    With brackets, a trial passes the first so many rungs uncompared as its number divided by the
    number of brackets leaves over, which spares some of those that start slowly.

    Args:
        rungs: fidelities at which trials are compared, ascending; the last is the end of training.
        reduction: one of how many goes on.
        objectives: of the study; a signal that is one of them keeps its direction and scale.
        signal: the metric to rank by; `auto` is `validation_loss`, and with a tiny validation set
            `train_loss`. A metric that is no objective is minimised.
        n_validation: how many validation examples there are, or None where that is not known.
        brackets: 1 compares all trials at all rungs.

    Raises:
        StudyError: rungs that do not ascend, a reduction of 1 or less, or brackets that leave
            no rung to compare at.

    References:
        Schmucker et al., Multi-objective Asynchronous Successive Halving, 2021, algorithm 1;
        Li et al., Hyperband, 2018, section 3 (brackets).
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

    def _compare(self, curves: Sequence[Curve], current: Curve, n_passed: int) -> Decision:
        """The place of `current` among all that have reached the rung."""
        if n_passed <= (bracket := current.number % self.brackets):
            return Decision(True, f"bracket {bracket} passes the first {bracket} rungs")
        rung = self.rungs[n_passed - 1]
        latest = {curve.number: curve for curve in curves} | {current.number: current}
        standing = self._standings.get(rung)
        if standing is None or not standing.update(latest):
            standing = self._standings[rung] = _Standing(partial(self._row, rung))
            standing.update(latest)
        n, place = len(standing.ranking), standing.place(current.number)
        allowed = int(n / self.reduction + 1e-9)
        what = f"{place} of {n} at {rung:g} by {self.signal}"
        if n < self.reduction:
            return Decision(True, f"{what}; too few to compare")
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


def _signal(n_validation: int | None) -> str:
    if n_validation is None or n_validation >= TINY:
        return "validation_loss"
    warnings.warn(
        f"{n_validation} validation examples are too few to stop by; "
        "trials are ranked by training loss",
        stacklevel=3,
    )
    return "train_loss"


def has_reached(fidelity: float, rung: float) -> bool:
    """Whether a fidelity is a rung or beyond."""
    return fidelity >= rung * (1 - 1e-6)


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
        """Takes in what has changed; False where that is more than curves that have grown."""
        known = self._curves
        changed = [curve for n, curve in latest.items() if known.get(n) is not curve]
        for curve in changed:
            known[curve.number] = curve
            if not self._take(curve.number, self._row(curve)):
                return False
        return len(known) == len(latest)

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
        ranks, own = self.ranking.ranks, self._places[number]
        peers = np.flatnonzero(ranks == ranks[own])
        rows, numbers = self.ranking.rows[peers], np.array(list(self._places))[peers]
        signal = np.nan_to_num(rows[:, 0], nan=np.inf)
        order = peers[np.lexsort([numbers, signal, -crowding(rows)])]
        before = np.count_nonzero(ranks < ranks[own]) + np.flatnonzero(order == own)
        return int(before.item()) + 1


def rungs_between(minimum: float, maximum: float, reduction: float) -> tuple[float, ...]:
    """The rungs `minimum`, `minimum * reduction`, … below `maximum`, and `maximum`.

    Raises:
        StudyError: not `0 < minimum <= maximum`, or a reduction of 1 or less.
    """
    if not 0 < minimum <= maximum:
        raise StudyError(f"expected 0 < first <= last, got {minimum} and {maximum}", "fidelity")
    if not reduction > 1:
        raise StudyError(f"must be a number above 1, got {reduction}", "fidelity.reduction")
    rungs, rung = [], float(minimum)
    while rung < maximum * (1 - 1e-6):
        rungs.append(rung)
        rung *= reduction
    return (*rungs, float(maximum))
