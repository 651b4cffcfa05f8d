"""The samplers by name: Optuna's, made pure functions of the history, and our own."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import (
    BaseSampler,
    GPSampler,
    NSGAIIISampler,
    NSGAIISampler,
    QMCSampler,
    RandomSampler,
    TPESampler,
)
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from autopeft.core.errors import StudyError, unknown
from autopeft.core.registry import Registry
from autopeft.objective.objective import Objective
from autopeft.objective.quantity import Known
from autopeft.search.bandit import BanditSampler
from autopeft.search.delegating import Delegating
from autopeft.search.history import Observation, tells
from autopeft.search.staged import StagedSampler
from autopeft.space.bound import BoundSpace

POPULATION = 16
"""Trials per generation of the genetic samplers; studies have tens of trials, not thousands."""


class Replayable(Delegating):
    """An Optuna sampler whose decision depends on the seed, the trial's number and the history.

    Optuna's samplers draw from a stream of random numbers that begins anew in every process, so a
    resumed study would repeat its first trials. Here every trial has a stream of its own. Complete
    trials that do not hold all decisions, such as baselines outside the space, are hidden from the
    sampler, because some samplers drop or miss every decision that one trial lacks; so are repeats.

    Args:
        make: the sampler of a seed.
        names: of all decisions of the space.
        seed: of the study.
    """

    def __init__(self, make: Callable[[int], BaseSampler], names: Sequence[str], seed: int) -> None:
        self._make, self._names, self._seed = make, frozenset(names), seed
        self._samplers: dict[int, BaseSampler] = {}

    def after_trial(
        self,
        study: Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """What the sampler does; afterwards the trial's stream is forgotten."""
        super().after_trial(study, trial, state, values)
        self._samplers.pop(trial.number, None)

    def of(self, trial: FrozenTrial) -> BaseSampler:
        """The sampler with the stream of a trial."""
        if trial.number not in self._samplers:
            words = np.random.SeedSequence([self._seed, trial.number])
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                self._samplers[trial.number] = self._make(int(words.generate_state(1)[0]))
        return self._samplers[trial.number]

    def view(self, study: Study) -> Study:
        """The study without what is hidden."""
        return _View(study, self._names)


class _View(Study):
    """A study without repeats and the complete trials that lack a decision."""

    def __init__(self, study: Study, names: frozenset[str]) -> None:
        self.__dict__.update(study.__dict__)
        self._names = names

    def _get_trials(
        self,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
        use_cache: bool = False,
    ) -> list[FrozenTrial]:
        trials = super()._get_trials(deepcopy, states, use_cache)
        return [t for t in trials if tells(t) and self._is_whole(t)]

    def _is_whole(self, trial: FrozenTrial) -> bool:
        return trial.state != TrialState.COMPLETE or self._names <= trial.params.keys()


@dataclass(frozen=True)
class Problem:
    """What a sampler is made from.

    Attributes:
        space: bound to the backbone.
        objectives: in the order of the study's directions.
        known: how known objectives are computed, by name.
        limits: greatest values of known quantities, by name, which may fall.
        seed: of all randomness.
        earlier: observations of earlier studies, losses in the order of the objectives; None for
            the trials that come with autopeft.
    """

    space: BoundSpace
    objectives: Sequence[Objective]
    known: Mapping[str, Known] = field(default_factory=dict)
    limits: Mapping[str, float] = field(default_factory=dict)
    seed: int = 0
    earlier: Sequence[Sequence[Observation]] | None = None


def _optuna(
    description: str, make: Callable[[int], BaseSampler]
) -> Callable[[Problem], BaseSampler]:
    def sampler(problem: Problem) -> BaseSampler:
        return Replayable(make, list(problem.space.distributions()), problem.seed)

    sampler.__doc__ = description
    return sampler


def _qmc(problem: Problem) -> BaseSampler:
    """Quasi-random Sobol sequence.

    The scrambling stays the same for all trials; the position is in the record.
    """
    make = _optuna(
        "",
        lambda seed: QMCSampler(
            seed=problem.seed,
            scramble=True,
            independent_sampler=RandomSampler(seed=seed),
            warn_independent_sampling=False,
        ),
    )
    return make(problem)


def _bayes(problem: Problem) -> BaseSampler:
    """Gaussian process over learned objectives; known ones enter the acquisition exactly."""
    from autopeft.search.bayes import BayesSampler

    return BayesSampler(
        problem.space,
        problem.objectives,
        problem.known,
        problem.limits,
        problem.earlier,
        seed=problem.seed,
    )


def _staged(problem: Problem) -> BaseSampler:
    """One part of the space after the other, each fixed by averages, as S4 was found."""
    return StagedSampler(problem.space, problem.objectives, seed=problem.seed)


_OWN: Mapping[str, Callable[[Problem], BaseSampler]] = {
    "bayes": _bayes,
    "gp": _optuna(
        "Gaussian process of Optuna over all objectives.",
        lambda seed: GPSampler(seed=seed, warn_independent_sampling=False),
    ),
    "nsga2": _optuna(
        "Genetic, by non-dominated sorting and crowding.",
        lambda seed: NSGAIISampler(seed=seed, population_size=POPULATION),
    ),
    "nsga3": _optuna(
        "Genetic, by non-dominated sorting and reference points.",
        lambda seed: NSGAIIISampler(seed=seed, population_size=POPULATION),
    ),
    "qmc": _qmc,
    "random": _optuna("Uniform.", lambda seed: RandomSampler(seed=seed)),
    "staged": _staged,
    "tpe": _optuna("Tree-structured Parzen estimator.", lambda seed: TPESampler(seed=seed)),
}
SAMPLERS: Registry[Callable[[Problem], BaseSampler]] = Registry(_OWN, "autopeft.samplers", callable)
"""All samplers by the name that a study gives in `search.sampler`; each begins its docstring with
what `autopeft list samplers` says."""


def make_sampler(names: str | Sequence[str], problem: Problem) -> BaseSampler:
    """The sampler of a name, ready for `optuna.create_study(sampler=…, directions=…)`.

    Args:
        names: one, or several that take turns by what they add, see `BanditSampler`.
        problem: what it is made from.

    Raises:
        StudyError: no such name, or objectives that the sampler cannot pursue.
    """
    if not isinstance(names, str):
        if len(names) == 1:
            return make_sampler(names[0], problem)
        arms = {name: make_sampler(name, problem) for name in names}
        return BanditSampler(arms, problem.objectives)
    if names not in SAMPLERS:
        raise StudyError(unknown("sampler", names, SAMPLERS), "search.sampler")
    return SAMPLERS[names](problem)
