"""A sampler that knows the table: how few trials suffice after the starting points."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from autopeft.search.candidates import everything
from autopeft.search.gain import expected_gain
from benchmarks.search.problem import Array, Problem
from benchmarks.search.whole_point import WholePointSampler


class OracleSampler(WholePointSampler):
    """Proposes the configuration whose true values add most hypervolume.

    Args:
        problem: a finite one.
    """

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.space.distributions())
        self._problem = problem

    @cached_property
    def _all(self) -> tuple[list[dict[str, Any]], Array]:
        """Points of all configurations, and their losses."""
        drawn = everything(self._problem.space) or []
        values = [self._problem.values(each.config) for each in drawn]
        return [dict(each.point) for each in drawn], np.array(
            list(map(self._problem.losses, values))
        )

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The best point."""
        done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        reached = np.array([self._problem.losses(t.values) for t in done])
        points, losses = self._all
        gains = expected_gain(reached, self._problem.corner, losses, np.zeros_like(losses))
        return points[int(gains.argmax())]
