"""Early stopping with several objectives: which trials are worth training on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from autopeft.core.config import PeftConfig
from autopeft.core.errors import StudyError
from autopeft.core.report import Report


@dataclass(frozen=True)
class Curve:
    """One trial as a stopper sees it.

    Attributes:
        number: of the trial.
        known: losses of the known objectives, in the same order for all curves of a study.
        reports: the learning curve so far, in the order of training.
        protected: whether the trial is never stopped, as baselines are not.
        config: of the trial; None where a stopper is not to look at it.
        ended: whether the trial is trained no more, for whatever reason.
    """

    number: int
    known: tuple[float, ...] = ()
    reports: tuple[Report, ...] = ()
    protected: bool = False
    config: PeftConfig | None = None
    ended: bool = False


@dataclass(frozen=True)
class Decision:
    """What becomes of a trial.

    Attributes:
        goes_on: whether it is trained on now.
        reason: a sentence for the record.
        waits: whether it may go on later, so that it pauses and is decided about again.
    """

    goes_on: bool
    reason: str
    waits: bool = False


class Stopper(ABC):
    """Decides at every report, and again during a pause, whether a trial goes on.

    A decision is a pure function of its arguments and does not depend on the order of the curves.
    """

    @abstractmethod
    def decide(self, curves: Sequence[Curve], current: Curve, closed: bool = False) -> Decision:
        """The decision about one trial.

        Args:
            curves: of all trials that were started, `current` included.
            current: which it is about.
            closed: whether no trial will be started any more.
        """


class Never(Stopper):
    """Trains every trial to its end."""

    def decide(self, curves: Sequence[Curve], current: Curve, closed: bool = False) -> Decision:
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

    def decide(self, curves: Sequence[Curve], current: Curve, closed: bool = False) -> Decision:
        """The decision at the rung that the last report has reached."""
        fidelity = current.reports[-1].fidelity if current.reports else 0.0
        passed = [rung for rung in self.rungs if has_reached(fidelity, rung)]
        if not passed:
            return Decision(True, "before the first rung")
        if passed[-1] == self.rungs[-1]:
            return Decision(True, "at the last rung")
        if current.protected:
            return Decision(True, "baselines are trained to the end")
        latest = {curve.number: curve for curve in curves} | {current.number: current}
        return self._compare(latest, current, len(passed), closed)

    @abstractmethod
    def _compare(
        self, latest: Mapping[int, Curve], current: Curve, n_passed: int, closed: bool
    ) -> Decision:
        """The decision where a trial has passed so many rungs, not all.

        Args:
            latest: the curves by number, `current` among them.
            current: of the trial.
            n_passed: rungs.
            closed: see `decide`.
        """


def has_reached(fidelity: float, rung: float) -> bool:
    """Whether a fidelity is a rung or beyond."""
    return fidelity >= rung * (1 - 1e-6)


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
