"""What a search has seen, read from the trials of a study."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from optuna.trial import FrozenTrial, TrialState

from autopeft.core.config import PeftConfig
from autopeft.core.errors import AutoPeftError
from autopeft.objective.objective import Objective

if TYPE_CHECKING:
    from autopeft.space.bound import BoundSpace


@dataclass(frozen=True)
class Observation:
    """A configuration and what is known of it.

    Attributes:
        losses: in the order of the objectives; NaN where there is none.
    """

    config: PeftConfig
    losses: tuple[float, ...]


@dataclass(frozen=True)
class History:
    """What a search has seen before a decision.

    Attributes:
        observed: trained configurations; those that were stopped early with the losses that their
            curves promise.
        pending: configurations that run or wait.
        seen: keys of all configurations of any state.
        n_baselines: how many of the observed are fixed configurations that no search proposed.
    """

    observed: tuple[Observation, ...]
    pending: tuple[Observation, ...]
    seen: frozenset[str]
    n_baselines: int = 0


def read_history(
    trials: Sequence[FrozenTrial], space: BoundSpace, objectives: Sequence[Objective]
) -> History:
    """The history that the trials tell; trials that tell no configuration are passed over."""
    observed: list[Observation] = []
    pending: list[Observation] = []
    seen: set[str] = set()
    n_baselines = 0
    for trial in sorted(trials, key=lambda trial: trial.number):
        config = config_of(trial, space)
        if config is None:
            continue
        seen.add(config.key)
        losses = _losses(trial, trials, objectives)
        if not trial.state.is_finished():
            pending.append(Observation(config, losses))
        elif any(math.isfinite(v) for v, o in zip(losses, objectives, strict=True) if not o.known):
            observed.append(Observation(config, losses))
            n_baselines += trial.user_attrs.get("baseline") is not None
    return History(tuple(observed), tuple(pending), frozenset(seen), n_baselines)


def config_of(trial: FrozenTrial, space: BoundSpace) -> PeftConfig | None:
    """The configuration that a trial records or, in plain Optuna, that its parameters stand for."""
    document = trial.user_attrs.get("config")
    if document is None and not trial.params:
        return None
    try:
        if document is not None:
            return PeftConfig.from_dict(document)
        return space.resolve(trial.params)
    except (AutoPeftError, KeyError, TypeError, ValueError):
        return None


def _losses(
    trial: FrozenTrial, trials: Sequence[FrozenTrial], objectives: Sequence[Objective]
) -> tuple[float, ...]:
    """Measured values of complete trials, promised values of stopped ones, known values of all."""
    losses = []
    for index, objective in enumerate(objectives):
        value = math.nan
        if objective.known and objective.name in trial.user_attrs.get("known", {}):
            value = objective.loss(float(trial.user_attrs["known"][objective.name]))
        elif trial.state == TrialState.COMPLETE and len(trial.values) == len(objectives):
            value = objective.loss(trial.values[index])
        elif trial.state == TrialState.PRUNED and not objective.known:
            value = _promise(trial, trials, objective, index)
        losses.append(value if math.isfinite(value) else math.nan)
    return tuple(losses)


def _promise(
    trial: FrozenTrial, trials: Sequence[FrozenTrial], objective: Objective, index: int
) -> float:
    """The final loss that the last report of a stopped trial promises.

    It is a straight line through the complete trials' losses at the same fidelity and at the end,
    with a slope in [0, 1] so that it never overshoots; a shift while there are fewer than three.
    """
    reports = _curve(trial, objective)
    if not reports:
        return math.nan
    fidelity, last = max(reports.items())
    pairs = [
        (curve[fidelity], objective.loss(other.values[index]))
        for other in trials
        if other.state == TrialState.COMPLETE
        and fidelity in (curve := _curve(other, objective))
        and math.isfinite(other.values[index])
    ]
    if not pairs:
        return last
    early, final = np.array(pairs).T
    slope = 1.0
    if len(pairs) >= 3 and early.var() > 0:
        slope = float(np.clip(np.cov(early, final)[0, 1] / early.var(ddof=1), 0.0, 1.0))
    return float(final.mean() + slope * (last - early.mean()))


def _curve(trial: FrozenTrial, objective: Objective) -> dict[float, float]:
    """Loss by fidelity, as far as the reports hold the objective."""
    reports: Sequence[Mapping[str, Any]] = trial.user_attrs.get("reports", ())
    curve = {}
    for report in reports:
        value = report["metrics"].get(objective.name)
        if value is not None and math.isfinite(loss := objective.loss(float(value))):
            curve[float(report["fidelity"])] = loss
    return curve
