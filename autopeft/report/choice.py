"""The choice of one trial on the front, with its reason."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from autopeft.core.errors import StudyError, unknown
from autopeft.objective import pareto
from autopeft.objective.objective import Objective
from autopeft.report.front import Front, known, learned, losses
from autopeft.report.value import shown
from autopeft.study.repeats import POINT
from autopeft.study.trial import TrialRecord


@dataclass(frozen=True)
class Choice:
    """One trial of the front.

    Attributes:
        reason: why this one, as a sentence.
    """

    trial: TrialRecord
    reason: str


def choose(front: Front, rule: str = "knee", within: str | float | None = None) -> Choice:
    """One trial of the front, with the reason.

    Args:
        front: with at least one trial.
        rule: `best` has the best value of the first learned objective; `cheapest` the smallest
            first known objective among those whose learned objective lies within `within` of the
            best; `knee` lies deepest below the plane through the ends of the front, on the scales
            of the objectives. A configuration that places nothing is no knee where another is
            there: on a logarithmic scale zero lies so far out that it would always win.
        within: of `cheapest`: `1%` of the best value, or a number in the unit of the objective;
            None means one point, 0.01.

    Raises:
        StudyError: an empty front, an unknown rule, a bad `within`, or no objective of the kind
            that the rule needs.
    """
    if rule not in RULES:
        raise StudyError(unknown("rule", rule, RULES), "pick")
    if not front.trials:
        raise StudyError("no trial is complete, so there is none to pick", "pick")
    trial, reason = RULES[rule](front, POINT if within is None else within)
    return Choice(trial, f"trial {trial.number} {reason} ({front.basis})")


def pick(front: Front, rule: str = "knee", within: str | float | None = None) -> TrialRecord:
    """The trial that `choose` chooses."""
    return choose(front, rule, within).trial


def _best(front: Front, within: str | float) -> tuple[TrialRecord, str]:
    quality = learned(front.objectives)
    trial = min(front.trials, key=lambda trial: quality.loss(trial.values[quality.name]))
    value = shown(quality, trial.values[quality.name])
    return trial, f"has the best {_plain(quality)}, {value}"


def _cheapest(front: Front, within: str | float) -> tuple[TrialRecord, str]:
    quality, cost = learned(front.objectives), known(front.objectives)
    best, _ = _best(front, within)
    value = best.values[quality.name]
    slack = _slack(within, value)
    near = [trial for trial in front.trials if abs(trial.values[quality.name] - value) <= slack]
    trial = min(near, key=lambda trial: cost.loss(trial.values[cost.name]))
    price = f"has the least {_plain(cost)}, {shown(cost, trial.values[cost.name])}"
    near_best = f"{_plain(quality)} is within {_margin(within)} of the best"
    return trial, f"{price}, of those whose {near_best}, {shown(quality, value)}"


def _knee(front: Front, within: str | float) -> tuple[TrialRecord, str]:
    placed = [trial for trial in front.trials if trial.config.placements] or front.trials
    index = pareto.knee([losses(trial, front.objectives) for trial in placed])
    if index is None:
        raise StudyError("no trial has finite values in every objective", "pick")
    names = " and ".join(map(_plain, front.objectives))
    return placed[index], f"is where the front of {names} bends most"


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


def _margin(within: str | float) -> str:
    return "one point" if within == POINT else str(within).strip()


def _plain(objective: Objective) -> str:
    return objective.name.replace("_", " ")


RULES: dict[str, Callable[[Front, str | float], tuple[TrialRecord, str]]] = {
    "best": _best,
    "cheapest": _cheapest,
    "knee": _knee,
}
