"""Early stopping with several objectives: which trials are worth training on."""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from autopeft.core.errors import StudyError, unknown
from autopeft.core.report import Report
from autopeft.objective.objective import Objective
from autopeft.objective.pareto import crowding, ranks

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
    """

    number: int
    known: tuple[float, ...] = ()
    reports: tuple[Report, ...] = ()
    protected: bool = False


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


class SuccessiveHalving(Stopper):
    """Asynchronous successive halving on the non-dominated rank.

    At every rung but the last a trial goes on if it is among the best `1 / reduction` of all that
    have reached the rung, by rank on the signal and the known losses, then by crowding. While
    fewer than `reduction` have reached the rung, all go on. A signal that is not finite ranks last.

    Args:
        rungs: fidelities at which trials are compared, ascending; the last is the end of training.
        reduction: one of how many goes on.
        objectives: of the study; a signal that is one of them keeps its direction and scale.
        signal: the metric to rank by; `auto` is `validation_loss`, and with a tiny validation set
            `train_loss`. A metric that is no objective is minimised.
        n_validation: how many validation examples there are, or None where that is not known.

    Raises:
        StudyError: rungs that do not ascend, or a reduction of 1 or less.

    References:
        Schmucker et al., Multi-objective Asynchronous Successive Halving, 2021, algorithm 1.
    """

    def __init__(
        self,
        rungs: Sequence[float],
        reduction: float,
        objectives: Sequence[Objective] = (),
        signal: str = "auto",
        n_validation: int | None = None,
    ) -> None:
        if not rungs or rungs[0] <= 0 or any(a >= b for a, b in pairwise(rungs)):
            raise StudyError(f"rungs must be positive and ascend, got {list(rungs)}", "fidelity")
        if not reduction > 1:
            raise StudyError(f"must be a number above 1, got {reduction}", "fidelity.reduction")
        self.rungs, self.reduction = tuple(float(rung) for rung in rungs), float(reduction)
        self.signal = _signal(n_validation) if signal == "auto" else signal
        self._objective = next((o for o in objectives if o.name == self.signal), None)

    def decide(self, curves: Sequence[Curve], current: Curve) -> Decision:
        """Goes on or stops at the rung that the last report has reached."""
        fidelity = current.reports[-1].fidelity if current.reports else 0.0
        passed = [rung for rung in self.rungs if _reached(fidelity, rung)]
        if not passed:
            return Decision(True, "before the first rung")
        if passed[-1] == self.rungs[-1]:
            return Decision(True, "at the last rung")
        if current.protected:
            return Decision(True, "baselines are trained to the end")
        return self._compare(curves, current, passed[-1])

    def _compare(self, curves: Sequence[Curve], current: Curve, rung: float) -> Decision:
        """The place of `current` among all that have reached the rung."""
        latest = {curve.number: curve for curve in curves} | {current.number: current}
        signals = {n: s for n, c in latest.items() if (s := self._at(c, rung)) is not None}
        order = _order({n: (signals[n], *latest[n].known) for n in sorted(signals)})
        place, allowed = order.index(current.number) + 1, int(len(order) / self.reduction + 1e-9)
        what = f"{place} of {len(order)} at {rung:g} by {self.signal}"
        if len(order) < self.reduction:
            return Decision(True, f"{what}; too few to compare")
        return Decision(place <= allowed, f"{what}; the first {allowed} go on")

    def _at(self, curve: Curve, rung: float) -> float | None:
        """The signal as a loss in the first report at or after the rung; None before it.

        Raises:
            StudyError: the reports do not hold the signal.
        """
        report = next((r for r in curve.reports if _reached(r.fidelity, rung)), None)
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


def _reached(fidelity: float, rung: float) -> bool:
    return fidelity >= rung * (1 - 1e-6)


def _order(losses: Mapping[int, tuple[float, ...]]) -> list[int]:
    """Trials from best to worst: by rank, crowding within it, signal, and number."""
    numbers = list(losses)
    rows = np.array([losses[number] for number in numbers], dtype=np.float64)
    rank, distance = ranks(rows), np.zeros(len(numbers))
    for level in np.unique(rank):
        distance[rank == level] = crowding(rows[rank == level])
    signal = np.nan_to_num(rows[:, 0], nan=np.inf)
    return [numbers[i] for i in np.lexsort([np.array(numbers), signal, -distance, rank])]


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


@dataclass(frozen=True)
class Fidelity:
    """What a stopper is made from; see `SuccessiveHalving`."""

    rungs: tuple[float, ...]
    reduction: float = 3.0
    objectives: tuple[Objective, ...] = ()
    signal: str = "auto"
    n_validation: int | None = None


STOPPERS: Mapping[str, Callable[[Fidelity], Stopper]] = {
    "halving": lambda f: SuccessiveHalving(
        f.rungs, f.reduction, f.objectives, f.signal, f.n_validation
    ),
    "none": lambda f: Never(),
}


def make_stopper(name: str, fidelity: Fidelity) -> Stopper:
    """The stopper of a name.

    Raises:
        StudyError: no such name, or a fidelity that the stopper refuses.
    """
    if name not in STOPPERS:
        raise StudyError(unknown("stopper", name, STOPPERS), "fidelity.stopper")
    return STOPPERS[name](fidelity)
