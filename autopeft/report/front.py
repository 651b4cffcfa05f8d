"""The Pareto front of a study and the choice of one trial on it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from autopeft.core.errors import StudyError, unknown
from autopeft.objective import pareto
from autopeft.objective.objective import Objective
from autopeft.report.seeds import contenders
from autopeft.study.trial import TrialRecord

DEFAULT_WITHIN = "1%"


@dataclass(frozen=True)
class Front:
    """The complete trials that no other complete trial dominates.

    Where trials were trained again with fresh seeds, it is of those alone and of their means over
    the fresh seeds.

    Attributes:
        objectives: in the order of the study.
        trials: the best by the first objective first; equals by the next ones, then by number.
    """

    objectives: tuple[Objective, ...]
    trials: tuple[TrialRecord, ...]

    @classmethod
    def of(cls, records: Iterable[TrialRecord], objectives: Sequence[Objective]) -> Front:
        """The front of the records, a pure function of both arguments."""
        objectives = tuple(objectives)
        finished = contenders(records)
        keep = pareto.front([losses(record, objectives) for record in finished])
        best = [record for record, is_best in zip(finished, keep, strict=True) if is_best]
        best.sort(key=lambda record: (*losses(record, objectives), record.number))
        return cls(objectives, tuple(best))

    @property
    def hypervolume(self) -> float:
        """In the space of losses; the corner is the reference of each objective."""
        rows = [losses(trial, self.objectives) for trial in self.trials]
        return pareto.hypervolume(rows, [o.worst for o in self.objectives])

    def to_dict(self) -> dict[str, Any]:
        """The front as plain values for JSON; counts are whole numbers, sizes in bytes."""
        return {
            "objectives": [
                {"name": o.name, "goal": o.goal, "unit": o.unit, "known": o.known}
                for o in self.objectives
            ],
            "front": [
                {
                    "trial": trial.number,
                    "values": {o.name: plain(o, trial.values) for o in self.objectives},
                    "config": trial.config.to_dict(),
                    **_seeds(trial),
                }
                for trial in self.trials
            ],
        }


def _seeds(trial: TrialRecord) -> dict[str, Any]:
    """What fresh seeds tell, where there are any."""
    if not trial.n_seeds:
        return {}
    means = {"values": dict(trial.test), "margins": dict(trial.test_margins)}
    return {"seeds": trial.n_seeds, "margins": dict(trial.margins), "test": means}


def losses(record: TrialRecord, objectives: Sequence[Objective]) -> list[float]:
    """The values of a trial as numbers to minimise, NaN where one is missing."""
    return [o.loss(record.values.get(o.name, math.nan)) for o in objectives]


def plain(objective: Objective, values: Mapping[str, float]) -> float | int | None:
    """The value of an objective as JSON knows it: counts and bytes whole, None for no number."""
    value = values.get(objective.name, math.nan)
    if not math.isfinite(value):
        return None
    return int(value) if objective.known and float(value).is_integer() else value


def learned(objectives: Sequence[Objective]) -> Objective:
    """The first objective that only training tells.

    Raises:
        StudyError: every objective is known before training.
    """
    for objective in objectives:
        if not objective.known:
            return objective
    raise StudyError("every objective is known before training, none is learned", "objectives")


def known(objectives: Sequence[Objective]) -> Objective:
    """The first objective that is known before training.

    Raises:
        StudyError: training is needed for every objective.
    """
    for objective in objectives:
        if objective.known:
            return objective
    raise StudyError("no objective is known before training", "objectives")


def pick(front: Front, rule: str = "knee", within: str | float | None = None) -> TrialRecord:
    """One trial of the front.

    Args:
        front: with at least one trial.
        rule: `best` has the best value of the first learned objective; `cheapest` the smallest
            first known objective among those whose learned objective lies within `within` of the
            best; `knee` lies deepest below the plane through the ends of the front, on the scales
            of the objectives. A configuration that places nothing is no knee where another is
            there: on a logarithmic scale zero lies so far out that it would always win.
        within: of `cheapest`: `1%` of the best value, or a number in the unit of the objective;
            None means 1%.

    Raises:
        StudyError: an empty front, an unknown rule, a bad `within`, or no objective of the kind
            that the rule needs.
    """
    if rule not in RULES:
        raise StudyError(unknown("rule", rule, RULES), "pick")
    if not front.trials:
        raise StudyError("no trial is complete, so there is none to pick", "pick")
    return RULES[rule](front, DEFAULT_WITHIN if within is None else within)


def _best(front: Front, within: str | float) -> TrialRecord:
    first = learned(front.objectives)
    return min(front.trials, key=lambda trial: first.loss(trial.values[first.name]))


def _cheapest(front: Front, within: str | float) -> TrialRecord:
    quality, cost = learned(front.objectives), known(front.objectives)
    best = _best(front, within).values[quality.name]
    slack = _slack(within, best)
    near = [trial for trial in front.trials if abs(trial.values[quality.name] - best) <= slack]
    return min(near, key=lambda trial: cost.loss(trial.values[cost.name]))


def _knee(front: Front, within: str | float) -> TrialRecord:
    placed = [trial for trial in front.trials if trial.config.placements] or front.trials
    index = pareto.knee([losses(trial, front.objectives) for trial in placed])
    if index is None:
        raise StudyError("no trial has finite values in every objective", "pick")
    return placed[index]


def _slack(within: str | float, best: float) -> float:
    """How far from the best a value may lie, with a hair for rounding."""
    text = str(within).strip()
    try:
        number = float(text.removesuffix("%"))
    except ValueError:
        number = math.nan
    if not (math.isfinite(number) and number >= 0):
        raise StudyError(f"must be a percentage such as 1% or a number, got {within!r}", "within")
    return (number / 100 * abs(best) if text.endswith("%") else number) + 1e-12


RULES: dict[str, Callable[[Front, str | float], TrialRecord]] = {
    "best": _best,
    "cheapest": _cheapest,
    "knee": _knee,
}
