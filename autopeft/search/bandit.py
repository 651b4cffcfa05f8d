"""`BanditSampler`: several samplers, of which the one that pays most proposes next."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from autopeft.objective.objective import Objective
from autopeft.objective.pareto import front, hypervolume
from autopeft.search.delegating import Delegating
from autopeft.search.history import tells

ARM = "sampler"
"""The attribute of a trial that tells who proposed it."""

N_FIRST = 3
"""Trials of every sampler before any is preferred."""

N_RECENT = 8
"""Trials of a sampler that count."""


class BanditSampler(Delegating):
    """Lets that sampler propose whose recent trials added most hypervolume per second of theirs.

    Every sampler has a few trials first; of equal ones it is the turn of the one with the fewest.
    What others proposed belongs to the front and to nobody. Nothing is added before the front has
    a volume, nor by trials that were stopped or failed, which took their time, nor by those that
    were rejected, which took none.

    Args:
        arms: the samplers by name.
        objectives: in the order of the study's directions.
    """

    def __init__(self, arms: Mapping[str, BaseSampler], objectives: Sequence[Objective]) -> None:
        self._arms, self._objectives = dict(arms), tuple(objectives)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Chooses who proposes, unless the trial was queued or has been proposed before."""
        is_queued = "fixed_params" in trial.system_attrs
        if not is_queued and trial.user_attrs.get(ARM) not in self._arms:
            name = self.choice(study.get_trials(deepcopy=False))
            study._storage.set_trial_user_attr(trial._trial_id, ARM, name)
            trial.user_attrs[ARM] = name
        super().before_trial(study, trial)

    def choice(self, trials: Sequence[FrozenTrial]) -> str:
        """The name of the sampler that is next.

        Args:
            trials: all so far.
        """
        turns = Counter(trial.user_attrs.get(ARM) for trial in trials)
        accepted = Counter(t.user_attrs.get(ARM) for t in trials if "rejected" not in t.user_attrs)
        new = [n for n in self._arms if accepted[n] < N_FIRST and turns[n] < N_RECENT]
        if new:
            return min(new, key=turns.__getitem__)
        pay = self._pay(trials)
        return max(self._arms, key=lambda name: (pay[name], -turns[name]))

    def of(self, trial: FrozenTrial) -> BaseSampler:
        """Who proposed it; the first for what was queued."""
        name = str(trial.user_attrs.get(ARM))
        return self._arms.get(name, next(iter(self._arms.values())))

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
        pay = {
            name: sum(g for g, _ in of) / max(1e-3, sum(s for _, s in of))
            for name, of in recent.items()
        }
        return defaultdict(float, pay)

    def _losses(self, trial: FrozenTrial) -> list[float]:
        """Those of a complete trial, else none."""
        values = trial.values if trial.state == TrialState.COMPLETE else ()
        return [o.loss(value) for o, value in zip(self._objectives, values, strict=False)]


def _end(trial: FrozenTrial) -> tuple[float, int]:
    ended = trial.datetime_complete
    return ended.timestamp() if ended else 0.0, trial.number


def _seconds(trial: FrozenTrial) -> float:
    """That the trial took; 1 where nobody tells, 0 of one that was rejected."""
    return 0.0 if "rejected" in trial.user_attrs else float(trial.user_attrs.get("seconds", 1.0))
