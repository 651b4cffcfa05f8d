"""`BanditSampler`: several samplers, of which the one that pays most proposes next."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from autopeft.objective.objective import Objective
from autopeft.objective.pareto import front, hypervolume
from autopeft.search.history import tells

ARM = "sampler"
"""The attribute of a trial that tells who proposed it."""

N_FIRST = 3
"""Trials of every sampler before any is preferred."""

N_RECENT = 8
"""Trials of a sampler that count."""


class BanditSampler(BaseSampler):
    """Lets that sampler propose whose recent trials added most hypervolume per second of theirs.

    Every sampler has a few trials first; of equal ones it is the turn of the one with the fewest.
    What others proposed belongs to the front and to nobody. The first of all trials added nothing,
    nor did those that were stopped or failed, which took their time.

    Args:
        arms: the samplers by name.
        objectives: in the order of the study's directions.
    """

    def __init__(self, arms: Mapping[str, BaseSampler], objectives: Sequence[Objective]) -> None:
        self._arms, self._objectives = dict(arms), tuple(objectives)
        self._chosen: dict[int, str] = {}

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Chooses who proposes, unless the trial was queued."""
        if "fixed_params" not in trial.system_attrs:
            name = trial.user_attrs.get(ARM)
            if name not in self._arms:
                name = self.choice(study.get_trials(deepcopy=False))
                study._storage.set_trial_user_attr(trial._trial_id, ARM, name)
            self._chosen[trial.number] = name
        self._of(trial).before_trial(study, trial)

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """That of the sampler."""
        return self._of(trial).infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Those of the sampler."""
        return self._of(trial).sample_relative(study, trial, search_space)

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """That of the sampler."""
        return self._of(trial).sample_independent(study, trial, param_name, param_distribution)

    def after_trial(
        self,
        study: Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """What the sampler does."""
        self._of(trial).after_trial(study, trial, state, values)
        self._chosen.pop(trial.number, None)

    def choice(self, trials: Sequence[FrozenTrial]) -> str:
        """The name of the sampler that is next.

        Args:
            trials: all so far.
        """
        n_trials = dict.fromkeys(self._arms, 0)
        for trial in trials:
            if trial.user_attrs.get(ARM) in n_trials:
                n_trials[trial.user_attrs[ARM]] += 1
        fewest = min(n_trials, key=n_trials.__getitem__)
        if n_trials[fewest] < N_FIRST:
            return fewest
        pay = self._pay(trials)
        return max(self._arms, key=lambda name: (pay[name], -n_trials[name]))

    def _of(self, trial: FrozenTrial) -> BaseSampler:
        name = self._chosen.get(trial.number, trial.user_attrs.get(ARM))
        return self._arms.get(str(name), next(iter(self._arms.values())))

    def _pay(self, trials: Sequence[FrozenTrial]) -> Mapping[str, float]:
        """By name the hypervolume that recent trials added, per second; 0 for none."""
        ended = sorted((t for t in trials if t.state.is_finished() and tells(t)), key=_end)
        corner = [objective.worst for objective in self._objectives]
        best: list[list[float]] = []
        volume = 0.0
        told: dict[str, list[tuple[float, float]]] = defaultdict(list)
        for trial in ended:
            before, row = volume, self._losses(trial)
            if row and front([row, *best])[0] and row not in best:
                kept = front([row, *best])[1:]
                best = [row, *(other for other, is_kept in zip(best, kept, strict=True) if is_kept)]
                volume = hypervolume(best, corner)
            gained = volume - before if before else 0.0
            told[str(trial.user_attrs.get(ARM))].append((gained, _seconds(trial)))
        recent = {name: of[-N_RECENT:] for name, of in told.items()}
        pay = {name: sum(g for g, _ in of) / sum(s for _, s in of) for name, of in recent.items()}
        return defaultdict(float, pay)

    def _losses(self, trial: FrozenTrial) -> list[float]:
        """Those of a complete trial, else none."""
        values = trial.values if trial.state == TrialState.COMPLETE else ()
        return [o.loss(value) for o, value in zip(self._objectives, values, strict=False)]


def _end(trial: FrozenTrial) -> tuple[float, int]:
    ended = trial.datetime_complete
    return ended.timestamp() if ended else 0.0, trial.number


def _seconds(trial: FrozenTrial) -> float:
    """That the trial took; 1 where nobody tells."""
    return max(1e-3, float(trial.user_attrs.get("seconds", 1.0)))
