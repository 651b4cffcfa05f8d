"""The samplers that compete, by name."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import optuna
from optuna.samplers import BaseSampler

from autopeft.search.bandit import BanditSampler
from autopeft.search.bayes import BayesSampler
from autopeft.search.sampler import POPULATION
from benchmarks.search.oracle_sampler import OracleSampler
from benchmarks.search.problem import Problem
from benchmarks.search.race import N_START, Axes, Course, Make, Race

optuna.logging.set_verbosity(optuna.logging.ERROR)
warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)


@dataclass(frozen=True)
class Peer:
    """How a sampler runs.

    Attributes:
        make: the sampler for a problem and a seed.
        plain: whether it takes the space as it is; see `Axes`.
        seeds: at most, and `trials`, where its proposals take long.
        batch: how many it proposes at a time.
    """

    make: Make
    plain: bool = False
    seeds: int | None = None
    trials: int | None = None
    batch: int = 1

    def run(self, problem: Problem, seed: int, n_trials: int) -> Course:
        """One run."""
        race = Race(problem, self.make, seed, plain=self.plain, batch=self.batch)
        return race.run(n_trials)


def _bayes(problem: Problem, seed: int) -> BaseSampler:
    return BayesSampler(
        problem.space,
        problem.objectives,
        problem.known,
        earlier=problem.earlier,
        seed=seed,
        n_startup=N_START,
    )


def _optuna(make: Callable[[int], BaseSampler]) -> Peer:
    return Peer(lambda problem, seed: make(seed))


def _ax(problem: Problem, seed: int) -> BaseSampler:
    from benchmarks.search.ax_sampler import AxSampler  # needs the extra `benchmark`

    distributions = Axes(problem.space, plain=False).distributions()
    return AxSampler(problem.objectives, distributions, seed)


def _saas(problem: Problem, seed: int) -> BaseSampler:
    from benchmarks.search.saas_sampler import SaasSampler  # needs the extra `benchmark`

    return SaasSampler(problem.objectives, Axes(problem.space, plain=False).distributions(), seed)


def _bandit(problem: Problem, seed: int) -> BaseSampler:
    tpe = optuna.samplers.TPESampler(seed=seed, n_startup_trials=N_START)
    nsga2 = optuna.samplers.NSGAIISampler(seed=seed, population_size=POPULATION)
    arms = {"bayes": _bayes(problem, seed), "tpe": tpe, "nsga2": nsga2}
    return BanditSampler(arms, problem.objectives)


PEERS: Mapping[str, Peer] = {
    "bayes": Peer(_bayes, plain=True),
    "ax": Peer(_ax, trials=50),
    "saas": Peer(_saas, seeds=5, trials=50, batch=4),
    "random": _optuna(lambda seed: optuna.samplers.RandomSampler(seed=seed)),
    "tpe": Peer(
        lambda problem, seed: optuna.samplers.TPESampler(seed=seed, n_startup_trials=N_START),
        trials=100,
    ),
    "nsga2": _optuna(
        lambda seed: optuna.samplers.NSGAIISampler(seed=seed, population_size=POPULATION)
    ),
    "nsga3": _optuna(
        lambda seed: optuna.samplers.NSGAIIISampler(seed=seed, population_size=POPULATION)
    ),
    "gp": Peer(
        lambda problem, seed: optuna.samplers.GPSampler(seed=seed, n_startup_trials=N_START),
        trials=60,
    ),
}
"""What is compared."""

VARIANTS: Mapping[str, Peer] = {
    "bayes without earlier studies": Peer(
        lambda problem, seed: _bayes(replace(problem, earlier=()), seed), plain=True, trials=100
    ),
    "bandit": Peer(_bandit, plain=True, trials=60),
}
"""Of `bayes`, to see what a part of it does, or whether others beside it help."""

FLOORS: Mapping[str, Peer] = {
    "oracle": Peer(lambda problem, seed: OracleSampler(problem), plain=True, trials=25)
}
"""What knows more than a sampler may; it says how few trials suffice."""
