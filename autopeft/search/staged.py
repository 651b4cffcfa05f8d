"""`StagedSampler`: decides one part of a space after the other, each by averages over the rest."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from autopeft.core.errors import StudyError
from autopeft.objective.objective import Objective
from autopeft.search.history import tells
from autopeft.space.bound import BoundSpace, Params
from autopeft.space.dimension import Dimension

N_EACH = 4
"""Finished trials of a stage for each value of its largest decision."""


class StagedSampler(BaseSampler):
    """Finds the grouping of layers, then the allocation, the tuned groups, the methods of a group.

    Within a stage its decisions and those of later stages are random, those of earlier stages are
    fixed. Then each decision of the stage is fixed at the value with the least mean loss, one with
    a continuous range at that of the best trial. Methods are found group by group, what concerns no
    group comes last. Once all is fixed, trials differ from it in one decision. Only measured
    objectives count: what configurations may cost is for a budget to say. A decision depends on
    the seed, the trial's number and the history alone.

    Args:
        space: where configurations come from.
        objectives: in the order of the study's directions.
        seed: of all randomness.

    Raises:
        StudyError: no objective is measured.

    References:
        Chen et al., Parameter-Efficient Fine-Tuning Design Spaces, 2023, section 4.
    """

    def __init__(
        self, space: BoundSpace, objectives: Sequence[Objective], *, seed: int = 0
    ) -> None:
        self._objectives, self._seed = tuple(objectives), seed
        self._measured = [i for i, objective in enumerate(objectives) if not objective.known]
        if not self._measured:
            raise StudyError("staged needs an objective that training measures", "objectives")
        dimensions = space.dimensions.items()
        self._dimensions = {n: d for n, d in dimensions if not d.distribution().single()}
        self.stages = stages(list(self._dimensions.values()), space.names)

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """All decisions of the space that leave a choice."""
        return {name: d.distribution() for name, d in self._dimensions.items()}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Fixed values for earlier stages, random ones for the others."""
        rng = np.random.default_rng([self._seed, trial.number])
        complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        fixed = self.fixed([trial for trial in complete if tells(trial)])
        drawn = {name: d.sample(rng) for name, d in self._dimensions.items()}
        if len(fixed) < len(drawn):
            return {**drawn, **fixed}
        name = list(fixed)[int(rng.integers(len(fixed)))]
        return {**fixed, name: self._dimensions[name].move(fixed[name], rng)}

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """A random value."""
        rng = np.random.default_rng([self._seed, trial.number, zlib.crc32(param_name.encode())])
        return self._dimensions[param_name].sample(rng)

    def fixed(self, trials: Sequence[FrozenTrial]) -> dict[str, Any]:
        """What complete trials have decided, by name.

        A stage is decided by the first trials that fit it, in the order in which they ended, so
        that later ones change nothing.
        """
        scores = [(t.params, self._loss(t)) for t in sorted(trials, key=_ended)]
        usable = [(p, v) for p, v in scores if p.keys() >= self._dimensions.keys() and v < math.inf]
        fixed: dict[str, Any] = {}
        for stage in self.stages:
            fitting = [(p, v) for p, v in usable if all(p[n] == fixed[n] for n in fixed)]
            n_needed = N_EACH * max(len(d.values or (0,)) for d in stage)
            if len(fitting) < n_needed:
                break
            fixed |= {dimension.name: _best(dimension, fitting[:n_needed]) for dimension in stage}
        return fixed

    def _loss(self, trial: FrozenTrial) -> float:
        """The sum of the measured losses; infinite where one is missing."""
        if len(trial.values) != len(self._objectives):
            return math.inf
        losses = [self._objectives[i].loss(trial.values[i]) for i in self._measured]
        return sum(losses) if all(map(math.isfinite, losses)) else math.inf


def stages(dimensions: Sequence[Dimension], groups: Sequence[str]) -> list[list[Dimension]]:
    """The decisions in the order in which they are taken; every one is in one stage."""

    def place(dimension: Dimension) -> int:
        head, _, group = dimension.name.partition("@")
        first = ("layers.pattern", "budget.", "layers.tuned")
        for index, start in enumerate(first):
            if head.startswith(start):
                return index
        return len(first) + (groups.index(group) if group in groups else len(groups))

    places = sorted({place(dimension) for dimension in dimensions})
    return [[d for d in dimensions if place(d) == index] for index in places]


def _ended(trial: FrozenTrial) -> tuple[float, int]:
    moment = trial.datetime_complete
    return (moment.timestamp() if moment else math.inf), trial.number


def _best(dimension: Dimension, scores: Sequence[tuple[Params, float]]) -> Any:
    """The value with the least mean loss, the first of equal ones."""
    if dimension.values is None:
        return min(scores, key=lambda each: each[1])[0][dimension.name]
    losses: dict[Any, list[float]] = {}
    for params, loss in scores:
        losses.setdefault(params[dimension.name], []).append(loss)
    return min(losses, key=lambda value: float(np.mean(losses[value])))
