"""What a search has seen, read from the trials of a study."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from autopeft.core.config import PeftConfig
from autopeft.core.document import Document
from autopeft.core.errors import AutoPeftError
from autopeft.objective.objective import Objective
from autopeft.search.promise import Promises, curve_of
from autopeft.space.bound import BoundSpace


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
    """The history that the trials tell, but for repeats and those without a configuration."""
    trials = sorted(filter(tells, trials), key=lambda trial: trial.number)
    documents = [Document(trial.user_attrs) for trial in trials]
    by_objective = [_losses(trials, documents, o, index) for index, o in enumerate(objectives)]
    measured = [index for index, o in enumerate(objectives) if not o.known]
    observed: list[Observation] = []
    pending: list[Observation] = []
    seen: set[str] = set()
    n_baselines = 0
    for trial, document, row in zip(
        trials, documents, zip(*by_objective, strict=True), strict=True
    ):
        config = config_of(trial, document, space)
        if config is None:
            continue
        seen.add(config.key)
        losses, doubts = zip(*row, strict=True)
        seen_as = Observation(config, losses, doubts, trial.params)
        if not trial.state.is_finished():
            pending.append(seen_as)
        elif any(math.isfinite(losses[index]) for index in measured):
            observed.append(seen_as)
            n_baselines += document.baseline is not None
    return History(tuple(observed), tuple(pending), frozenset(seen), n_baselines)


def tells(trial: FrozenTrial) -> bool:
    """Whether a trial may be compared with others.

    Repeats may not, which are trained longer, nor may one-shot searches.
    """
    return {"repeat_of", "proposer"}.isdisjoint(trial.user_attrs)


def config_of(trial: FrozenTrial, document: Document, space: BoundSpace) -> PeftConfig | None:
    """The configuration that a trial records or, in plain Optuna, that its parameters stand for."""
    try:
        if (config := document.config) is not None:
            return config
        return space.resolve(trial.params) if trial.params else None
    except (AutoPeftError, KeyError, TypeError, ValueError):
        return None


def _losses(
    trials: Sequence[FrozenTrial], documents: Sequence[Document], objective: Objective, index: int
) -> list[tuple[float, float]]:
    """The losses of one objective and their variances; NaN and 0 where a trial tells nothing.

    Measured values of complete trials, promised ones of stopped trials, the worst of those for
    trials that diverged, known ones of all.
    """
    finals = [_final(trial, objective, index) for trial in trials]
    if objective.known:
        known = [document.known.get(objective.name) for document in documents]
        pairs = zip(known, finals, strict=True)
        return [(_finite(f if k is None else objective.loss(float(k))), 0.0) for k, f in pairs]
    ended = (TrialState.COMPLETE, TrialState.PRUNED)
    curves = [
        curve_of(document.reports, objective) if trial.state in ended else {}
        for trial, document in zip(trials, documents, strict=True)
    ]
    promises = Promises(curves, finals)
    told = [
        promises(curve) if trial.state == TrialState.PRUNED else (final, 0.0)
        for trial, curve, final in zip(trials, curves, finals, strict=True)
    ]
    worst = max((loss for loss, _ in told if math.isfinite(loss)), default=math.nan)
    return [
        (worst, 0.0) if document.diverged else pair
        for document, pair in zip(documents, told, strict=True)
    ]


def _final(trial: FrozenTrial, objective: Objective, index: int) -> float:
    """The loss that a complete trial has; NaN of another."""
    if trial.state != TrialState.COMPLETE or len(trial.values) <= index:
        return math.nan
    return _finite(objective.loss(trial.values[index]))


def _finite(loss: float) -> float:
    return loss if math.isfinite(loss) else math.nan
