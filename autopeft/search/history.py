"""What a search has seen, read from the trials of a study."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from optuna.trial import FrozenTrial, TrialState

from autopeft.core.config import PeftConfig
from autopeft.core.errors import AutoPeftError
from autopeft.objective.objective import Objective
from autopeft.space.bound import BoundSpace

LOSSES = ("validation_loss", "train_loss")
"""Metrics that tell with little noise early what becomes of a trial."""

N_ENOUGH = 5
"""Complete trials from which it is learned which of them tells most."""

N_REMEMBERED = 2**14
"""Documents of configurations that are not read again, since every proposal reads all trials."""


@dataclass(frozen=True)
class Observation:
    """A configuration and what is known of it.

    Attributes:
        losses: in the order of the objectives; NaN where there is none.
        doubts: variance of each loss beside the noise of a training; by default none is in doubt.
        point: the decisions that the configuration was built from; none of a baseline.
    """

    config: PeftConfig
    losses: tuple[float, ...]
    doubts: tuple[float, ...] = ()
    point: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.doubts:
            object.__setattr__(self, "doubts", (0.0,) * len(self.losses))


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
        told = [_told(trial, trials, o, index) for index, o in enumerate(objectives)]
        losses, doubts = tuple(v for v, _ in told), tuple(d for _, d in told)
        seen_as = Observation(config, losses, doubts, trial.params)
        if not trial.state.is_finished():
            pending.append(seen_as)
        elif any(
            math.isfinite(v) for (v, _), o in zip(told, objectives, strict=True) if not o.known
        ):
            observed.append(seen_as)
            n_baselines += trial.user_attrs.get("baseline") is not None
    return History(tuple(observed), tuple(pending), frozenset(seen), n_baselines)


def config_of(trial: FrozenTrial, space: BoundSpace) -> PeftConfig | None:
    """The configuration that a trial records or, in plain Optuna, that its parameters stand for."""
    document = trial.user_attrs.get("config")
    if document is None and not trial.params:
        return None
    try:
        if document is not None:
            return _read(json.dumps(document))
        return space.resolve(trial.params)
    except (AutoPeftError, KeyError, TypeError, ValueError):
        return None


@lru_cache(N_REMEMBERED)
def _read(document: str) -> PeftConfig:
    return PeftConfig.from_dict(json.loads(document))


def _told(
    trial: FrozenTrial, trials: Sequence[FrozenTrial], objective: Objective, index: int
) -> tuple[float, float]:
    """The loss of one objective and its variance; NaN where the trial tells nothing of it.

    Measured values of complete trials, promised ones of stopped trials, known ones of all.
    """
    value, doubt = math.nan, 0.0
    if objective.known and objective.name in trial.user_attrs.get("known", {}):
        value = objective.loss(float(trial.user_attrs["known"][objective.name]))
    elif trial.state == TrialState.COMPLETE and len(trial.values) > index:
        value = objective.loss(trial.values[index])
    elif trial.state == TrialState.PRUNED and not objective.known:
        value, doubt = _promise(trial, trials, objective, index)
    return (value, doubt) if math.isfinite(value) else (math.nan, 0.0)


def _promise(
    trial: FrozenTrial, trials: Sequence[FrozenTrial], objective: Objective, index: int
) -> tuple[float, float]:
    """The final loss that the last report of a stopped trial promises, and its variance.

    It is a straight line from what the complete trials had reported at the same fidelity to their
    final losses: from the objective itself or, once there are enough, from whichever of the two
    losses of training strays least. The variance is that of the complete trials about the line.
    """
    curve = _curve(trial, objective)
    if not curve:
        return math.nan, 0.0
    fidelity, last = max(curve.items())
    ends = [
        (early, objective.loss(other.values[index]))
        for other in trials
        if other.state == TrialState.COMPLETE
        and (early := _curve(other, objective).get(fidelity)) is not None
        and math.isfinite(other.values[index])
    ]
    lines = []
    for column in range(len(last)):
        pairs = [(early[column], final) for early, final in ends if math.isfinite(early[column])]
        if math.isfinite(last[column]) and (column == 0 or len(pairs) >= N_ENOUGH):
            lines.append(_line(last[column], pairs, 1.0 if column == 0 else math.inf))
    return min(lines, key=lambda line: line[1], default=(math.nan, 0.0))


def _line(
    last: float, pairs: Sequence[tuple[float, float]], steepest: float
) -> tuple[float, float]:
    """The final loss where the early one is `last`, and the variance about the line.

    The slope is in [0, steepest], and 1 while there are fewer than three pairs.
    """
    if not pairs:
        return last, 0.0
    early, final = np.array(pairs).T
    slope = 1.0
    if len(pairs) >= 3 and early.var() > 0:
        slope = float(np.clip(np.cov(early, final)[0, 1] / early.var(ddof=1), 0.0, steepest))
    line = final.mean() + slope * (np.append(early, last) - early.mean())
    return float(line[-1]), float(np.mean((final - line[:-1]) ** 2))


def _curve(trial: FrozenTrial, objective: Objective) -> dict[float, tuple[float, ...]]:
    """By fidelity the loss of the objective and the losses of training, NaN where not reported."""
    reports: Sequence[Mapping[str, Any]] = trial.user_attrs.get("reports", ())
    curve = {}
    for report in reports:
        told = [report["metrics"].get(name) for name in (objective.name, *LOSSES)]
        value, *losses = (math.nan if value is None else float(value) for value in told)
        curve[float(report["fidelity"])] = (objective.loss(value), *losses)
    return curve
