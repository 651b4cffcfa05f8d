"""The Pareto front of a study and the choice of one trial on it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from autopeft.core.errors import StudyError
from autopeft.objective import pareto
from autopeft.objective.objective import Objective
from autopeft.report.frame import frame
from autopeft.report.seeds import contenders
from autopeft.study.trial import TrialRecord

if TYPE_CHECKING:
    from pandas import DataFrame


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

    @property
    def basis(self) -> str:
        """What the values of its trials are."""
        counts = [trial.n_seeds for trial in self.trials if not trial.trains_nothing]
        if self.trials and not counts:
            return "the model as it comes, on the validation split"
        if not any(counts):
            return "one training each, on the validation split"
        if max(counts) == 1:
            return "one fresh training each, on the validation split"
        seeds = f"{min(counts)} to {max(counts)}" if min(counts) < max(counts) else f"{counts[0]}"
        return f"means of {seeds} fresh trainings each, on the validation split"

    def frame(self) -> DataFrame:
        """Its trials as rows of a data frame of pandas."""
        return frame(self.trials, self.objectives)

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return str(self.frame().drop(columns="config")._repr_html_())

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
