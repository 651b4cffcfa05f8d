"""Ax's default for several objectives as a sampler of Optuna."""

from __future__ import annotations

import logging
import warnings
from typing import Any

from ax.api.client import Client
from ax.api.configs import RangeParameterConfig
from optuna.distributions import BaseDistribution, IntDistribution
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from autopeft.objective.objective import Objective
from benchmarks.search.whole_point import WholePointSampler


class AxSampler(WholePointSampler):
    """Proposes what `Client.get_next_trials` does.

    Ax is told the losses, so that counts come in their logarithm, and the references as the
    thresholds of its objectives. Starting points are trials that were attached.

    Args:
        objectives: in the order of the study's directions.
        distributions: of the study, whole numbers or real ones.
        seed: of Ax.
    """

    def __init__(
        self,
        objectives: tuple[Objective, ...],
        distributions: dict[str, BaseDistribution],
        seed: int,
    ) -> None:
        warnings.simplefilter("ignore")
        for name in logging.root.manager.loggerDict:
            if name.startswith("ax."):
                logging.getLogger(name).setLevel(logging.CRITICAL)
        super().__init__(distributions)
        self._objectives = objectives
        self._names = {name: f"x{i}" for i, name in enumerate(distributions)}
        self._reported: set[int] = set()
        self._client = Client(random_seed=seed)
        self._client.configure_experiment(
            [
                RangeParameterConfig(
                    name=self._names[name],
                    bounds=(d.low, d.high),
                    parameter_type="int" if isinstance(d, IntDistribution) else "float",
                )
                for name, d in distributions.items()
            ]
        )
        metrics = [f"m{i}" for i in range(len(objectives))]
        worst = [o.worst for o in objectives]
        self._client.configure_optimization(
            objective=", ".join(f"-{metric}" for metric in metrics),
            outcome_constraints=[f"{m} <= {w}" for m, w in zip(metrics, worst, strict=True)],
        )

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Tells Ax what is new, and asks it."""
        for done in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
            if done.number not in self._reported:
                self._tell(done)
        index, point = next(iter(self._client.get_next_trials(1).items()))
        self._asked = index
        return {name: point[theirs] for name, theirs in self._names.items()}

    def after_trial(self, study: Study, trial: FrozenTrial, state: Any, values: Any) -> None:
        """Completes the trial that Ax has proposed."""
        self._client.complete_trial(self._asked, self._data(values))
        self._reported.add(trial.number)

    def _tell(self, done: FrozenTrial) -> None:
        point = {theirs: done.params[name] for name, theirs in self._names.items()}
        index = self._client.attach_trial(point)
        self._client.complete_trial(index, self._data(done.values))
        self._reported.add(done.number)

    def _data(self, values: Any) -> dict[str, float]:
        pairs = zip(self._objectives, values, strict=True)
        return {f"m{i}": objective.loss(value) for i, (objective, value) in enumerate(pairs)}
