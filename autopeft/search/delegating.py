"""`Delegating`: a sampler that lets another one answer for a trial."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState


class Delegating(BaseSampler):
    """Asks for every trial the sampler that it is of."""

    @abstractmethod
    def of(self, trial: FrozenTrial) -> BaseSampler:
        """Who answers for a trial."""

    def view(self, study: Study) -> Study:
        """What that one sees of a study."""
        return study

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """That of the sampler."""
        return self.of(trial).infer_relative_search_space(self.view(study), trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Those of the sampler."""
        return self.of(trial).sample_relative(self.view(study), trial, search_space)

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """That of the sampler."""
        sampler = self.of(trial)
        return sampler.sample_independent(self.view(study), trial, param_name, param_distribution)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """What the sampler does."""
        self.of(trial).before_trial(self.view(study), trial)

    def after_trial(
        self,
        study: Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """What the sampler does."""
        self.of(trial).after_trial(self.view(study), trial, state, values)
