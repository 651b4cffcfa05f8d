"""Two studies beside each other, on one front."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import starmap
from typing import Any

from autopeft.core.errors import StudyError
from autopeft.objective.objective import Objective
from autopeft.report.front import Front, losses, plain
from autopeft.study.trial import TrialRecord


@dataclass(frozen=True)
class Side:
    """One of two studies.

    Attributes:
        name: of the study.
        front: of its complete trials.
        n_trials: that were trained, or tried.
        seconds: of training, all trials together.
        hypervolume: of the front, against the corner that both sides have.
        leading: trials of the front that none of the other one dominates or equals.
    """

    name: str
    front: Front
    n_trials: int
    seconds: float
    hypervolume: float
    leading: tuple[TrialRecord, ...]

    def best(self, objective: Objective) -> TrialRecord | None:
        """The trial of the front with the best value of an objective."""
        trials = self.front.trials
        return min(trials, key=lambda t: objective.loss(t.values[objective.name]), default=None)

    def to_dict(self) -> dict[str, Any]:
        """The side as plain values for JSON."""
        best = {}
        for objective in self.front.objectives:
            if (trial := self.best(objective)) is not None:
                value = plain(objective, trial.values)
                best[objective.name] = {"trial": trial.number, "value": value}
        return {
            "study": self.name,
            "n_trials": self.n_trials,
            "seconds": self.seconds,
            "hypervolume": self.hypervolume,
            "best": best,
            "front": [trial.number for trial in self.front.trials],
            "leading": [trial.number for trial in self.leading],
        }


@dataclass(frozen=True)
class Versus:
    """Two studies of the same objectives.

    Attributes:
        differing: what else they were begun with that is not the same, such as `task.data`.
    """

    first: Side
    second: Side
    differing: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        """Which of them is ahead, for people."""
        ahead, behind = sorted((self.first, self.second), key=lambda side: -side.hypervolume)
        n, of = len(behind.front.trials) - len(behind.leading), len(behind.front.trials)
        beaten = f"{n} of the {of} trials on the front of {behind.name} are no better than its own"
        if ahead.hypervolume == behind.hypervolume:
            return f"neither is ahead: {ahead.name} and {behind.name} have the same hypervolume"
        return (
            f"{ahead.name} is ahead, with a hypervolume of {ahead.hypervolume:.4f} against "
            f"{behind.hypervolume:.4f}; {beaten}"
        )

    def to_dict(self) -> dict[str, Any]:
        """The comparison as plain values for JSON."""
        return {
            "studies": [self.first.to_dict(), self.second.to_dict()],
            "differing": list(self.differing),
            "sentence": self.sentence,
        }


Told = tuple[str, Sequence[TrialRecord], Sequence[Objective]]
"""The name of a study, its trials and its objectives."""


def versus(first: Told, second: Told, differing: Sequence[str] = ()) -> Versus:
    """Two studies on one front.

    Hypervolumes are against the worse of the two references of each objective.

    Raises:
        StudyError: they have other objectives, or a front without trials.
    """
    wanted = [[(o.name, o.goal) for o in objectives] for _, _, objectives in (first, second)]
    if sorted(wanted[0]) != sorted(wanted[1]):
        one, other = (", ".join(f"{goal} {name}" for name, goal in each) for each in wanted)
        reason = f"{first[0]} is to {one}, {second[0]} is to {other}"
        raise StudyError(f"cannot be compared: {reason}", "objectives")
    by_name = {objective.name: objective for objective in second[2]}
    pairs = [(objective, by_name[objective.name]) for objective in first[2]]
    objectives = tuple(starmap(_laxer, pairs))
    fronts = [Front.of(records, objectives) for _, records, _ in (first, second)]
    for (name, _, _), front in zip((first, second), fronts, strict=True):
        if not front.trials:
            raise StudyError("has no complete trial", name)
    return Versus(
        _side(first, fronts[0], fronts[1]), _side(second, fronts[1], fronts[0]), tuple(differing)
    )


def _laxer(first: Objective, second: Objective) -> Objective:
    """The first with the worse of both references, on its scale."""
    worse = max if first.goal == "minimize" else min
    return replace(first, reference=worse(first.reference, second.reference))


def _side(study: Told, own: Front, other: Front) -> Side:
    name, records, _ = study
    tried = [record for record in records if record.seconds is not None]
    seconds = sum(record.seconds or 0.0 for record in tried)
    return Side(name, own, len(tried), seconds, own.hypervolume, _leading(own, other))


def _leading(own: Front, other: Front) -> tuple[TrialRecord, ...]:
    rows = [losses(trial, own.objectives) for trial in other.trials]
    return tuple(
        trial
        for trial in own.trials
        if not any(
            all(b <= a for a, b in zip(losses(trial, own.objectives), row, strict=True))
            for row in rows
        )
    )
