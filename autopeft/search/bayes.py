"""`BayesSampler`: Bayesian optimisation over configurations, with exact known objectives."""

from __future__ import annotations

import math
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache, cached_property, partial
from itertools import islice
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import Study
from optuna.trial import FrozenTrial

from autopeft.core.config import PeftConfig
from autopeft.core.errors import AutoPeftWarning, SpaceError, StudyError
from autopeft.objective.array import Array
from autopeft.objective.known import KnownLosses
from autopeft.objective.objective import Objective
from autopeft.objective.pareto import front
from autopeft.objective.quantity import Known
from autopeft.search.belief import Belief
from autopeft.search.candidates import (
    candidates,
    everything,
    nearest,
    spread,
    thrifty,
    unseen,
)
from autopeft.search.experience import experience
from autopeft.search.features import features
from autopeft.search.gain import corner_of, expected_gain
from autopeft.search.history import History, Observation, read_history
from autopeft.search.prior import Prior
from autopeft.search.surrogate import one_thread
from autopeft.space.bound import BoundSpace, Drawn

N_STARTUP = 3
"""Trials with which the model begins where earlier studies tell what to expect."""

N_EXACT = 8
"""For how many promising candidates slow known objectives are computed."""

N_SURE = 2
"""The same where their estimates are good."""

N_PROMISING, N_ASCENTS = 8, 6
"""How many points that earlier studies promise to be best lead to candidates, and how often their
neighbours are looked through for better ones."""

N_FALLBACK = 64
"""How many random configurations are drawn where no model helps."""

HOPE = 1e-6
"""What the gain of a candidate counts that is expected to be further behind than is of interest:
what costs nearly nothing would gain so much that the slightest chance outweighed everything."""

N_CLIMBS, N_CLIMBERS = 2, 12
"""How often neighbours of the most promising candidates join them, and of how many."""


class BayesSampler(BaseSampler):
    """Proposes the unseen configuration with the largest expected gain of hypervolume.

    A Gaussian process learns the measured objectives from features of the configurations; known
    objectives enter the hypervolume exactly. Where a measured objective says `within`, only losses
    that close to the best count, and every second proposal looks for better ones at any cost.
    Candidates are random configurations, and neighbours of the Pareto set and of what earlier
    studies promise most. A decision depends on the seed, the trial's number and the history alone.
    Trials may carry the user attributes `config`, `known` and `reports` of a study's record; in
    plain Optuna the parameters and values serve. Numerical trouble never ends a study: the trial is
    then a random unseen configuration and its user attribute `fallback` says why.

    Args:
        space: where candidates come from.
        objectives: in the order of the study's directions.
        known: how known objectives are computed, by name; a known objective that is not among
            them is learned.
        limits: greatest values of known quantities, by name, which may fall; candidates beyond
            are left out.
        earlier: observations of earlier studies, losses in the order of the objectives; None for
            the trials that come with autopeft.
        seed: of all randomness.
        n_startup: with how many trials, running ones included, the model begins, baselines not
            counted; by default few where earlier studies tell what to expect.

    References:
        Yang et al., Efficient Computation of Expected Hypervolume Improvement Using Box
        Decomposition Algorithms, 2019.
    """

    def __init__(
        self,
        space: BoundSpace,
        objectives: Sequence[Objective],
        known: Mapping[str, Known] | None = None,
        limits: Mapping[str, float] | None = None,
        earlier: Sequence[Sequence[Observation]] | None = None,
        *,
        seed: int = 0,
        n_startup: int | None = None,
    ) -> None:
        self.space, self.objectives, self.seed = space, tuple(objectives), seed
        self._known = KnownLosses(self.objectives, known or {}, {} if limits is None else limits)
        if not self._known.learned:
            raise StudyError("bayes needs an objective that training measures", "objectives")
        self._everything = everything(space)
        self._earlier = earlier
        self._distributions = {n: d for n, d in space.distributions().items() if not d.single()}
        self._n_startup = n_startup
        self._nearest = cache(self._found_near)

    @cached_property
    def _prior(self) -> Prior:
        learned, n_layers = self._known.learned, self.space.n_layers
        if self._earlier is None:
            return _own_prior(self.objectives, tuple(learned), n_layers)
        return Prior(self._earlier, learned, n_layers)

    @property
    def _leads(self) -> bool:
        """Whether a measured objective says that what is nearly best is wanted."""
        return any(self.objectives[i].within is not None for i in self._known.learned)

    @cached_property
    def n_startup(self) -> int:
        """With how many trials the model begins."""
        if self._n_startup is not None:
            return self._n_startup
        return N_STARTUP if len(self._prior) else max(8, round(2 * len(self._distributions) ** 0.5))

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """All decisions of the space that leave a choice."""
        return dict(self._distributions)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The point of the chosen configuration."""
        trials = [t for t in study.get_trials(deepcopy=False) if t.number != trial.number]
        history = read_history(trials, self.space, self.objectives)
        rng = np.random.default_rng([self.seed, trial.number])
        try:
            point = self.choose(history, rng, trial.number).point
        except Exception as error:  # whatever a model stumbles over, the study goes on
            point = self._anything(history, rng).point
            reason = f"{type(error).__name__}: {error}"[:500]
            message = f"trial {trial.number} is random, for {reason}"
            warnings.warn(message, AutoPeftWarning, stacklevel=2)
            study._storage.set_trial_user_attr(trial._trial_id, "fallback", reason)
        return {name: point[name] for name in search_space if name in point}

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """A random value for a decision that the chosen configuration does not ask for."""
        words = [self.seed, trial.number, zlib.crc32(param_name.encode())]
        seed = np.random.SeedSequence(words).generate_state(1)[0]
        return RandomSampler(seed=int(seed)).sample_independent(
            study, trial, param_name, param_distribution
        )

    def choose(self, history: History, rng: np.random.Generator, number: int) -> Drawn:
        """The configuration to try after a history; `number` counts the decisions before it.

        Raises:
            RuntimeError: the space is exhausted, or the model cannot be fitted.
        """
        n_observed, n_pending = len(history.observed) - history.n_baselines, len(history.pending)
        with one_thread():
            if n_observed + n_pending < self.n_startup or n_observed < self.n_startup // 2:
                return self._first(history, rng, number)
            return self._best(history, rng, at_any_cost=self._leads and number % 2 == 1)

    def _first(self, history: History, rng: np.random.Generator, index: int) -> Drawn:
        """A configuration of a wanted cost, that promises most or else is unlike the others.

        In a search for what is nearly best it is one of those that promise most.
        """
        cost, promising = self._cost, self._promising if self._leads else []
        leading = self._allowed(unseen(promising, history.seen))
        drawn = leading or self._allowed(thrifty(self.space, rng, cost, history.seen))
        configs = [each.config for each in drawn]
        taken = [o.config for o in (*history.observed, *history.pending)]
        rows = features([*taken, *configs], self.space.n_layers)
        costs = np.array([cost(config) for config in configs])
        is_told = len(self._prior) > 0 and not leading
        promise = self._prior.promise(configs) if is_told else None
        for _ in range(min(len(drawn), 4 * N_EXACT)):
            place = spread(index, costs, rows[len(taken) :], rows[: len(taken)], promise)
            if self._known.allows(drawn[place].config, slow=True):
                return drawn[place]
            del drawn[place]
            costs, rows = np.delete(costs, place), np.delete(rows, len(taken) + place, axis=0)
            promise = None if promise is None else np.delete(promise, place)
        raise RuntimeError("no unseen configuration within the limits was found")

    def _best(self, history: History, rng: np.random.Generator, at_any_cost: bool) -> Drawn:
        """The candidate of the largest gain; slow known losses are first estimated."""
        measured, pending = self._usable(history.observed), self._usable(history.pending)
        drawn = self._candidates(measured, history, rng)
        configs = [each.config for each in drawn]
        n_layers, prior = self.space.n_layers, self._prior
        belief = Belief(measured, pending, self._known, configs, n_layers, prior)
        gains_of = partial(self._gains, belief, at_any_cost)
        gains = gains_of(configs)
        for _ in range(N_CLIMBS if self._everything is None else 0):
            best = [drawn[i] for i in np.argsort(-gains, kind="stable")[:N_CLIMBERS]]
            near = [moved for each in best for moved in self.space.near(each, rng, N_CLIMBERS)]
            fresh = unseen(near, history.seen | {each.config.key for each in drawn})
            fresh = self._allowed(fresh)
            gains = np.append(gains, gains_of([each.config for each in fresh]))
            drawn += fresh
        order = np.argsort(-gains, kind="stable")
        return self._finalist(gains_of, [drawn[i] for i in order])

    def _candidates(
        self, measured: Sequence[Observation], history: History, rng: np.random.Generator
    ) -> list[Drawn]:
        """Unseen configurations within the limits that are cheap to check.

        Raises:
            RuntimeError: there are none.
        """
        if self._everything is None:
            rows = [self._known.row(o.config, o.losses) for o in measured]
            learned = [[o.losses[i] for i in self._known.learned] for o in measured]
            best = front(np.column_stack([learned, rows]))
            elites = self._points(o for o, is_best in zip(measured, best, strict=True) if is_best)
            fresh = candidates(self.space, rng, [*elites, *self._promising], history.seen)
        else:
            fresh = unseen(self._everything, history.seen)
        allowed = self._allowed(fresh)
        if not allowed:
            raise RuntimeError("no unseen configuration within the limits was found")
        return allowed

    @cached_property
    def _cost(self) -> Callable[[PeftConfig], float]:
        """The known loss that is cheapest to compute; 0 where none is known."""
        cheapest = self._known.cheapest
        return (lambda config: 0.0) if cheapest is None else partial(self._known.loss, cheapest)

    @cached_property
    def _promising(self) -> list[Drawn]:
        """Points that promise most for their cost before any trial, as far as climbs find them."""
        if not len(self._prior):
            return []
        rng = np.random.default_rng(self.seed)
        found = self._best_promises(thrifty(self.space, rng, self._cost, frozenset()))
        for _ in range(N_ASCENTS):
            near = [moved for each in found for moved in self.space.near(each, rng, N_CLIMBERS)]
            found = self._best_promises(unseen([*found, *near], frozenset()))
        return found

    def _best_promises(self, fresh: Sequence[Drawn]) -> list[Drawn]:
        """The best allowed ones that nothing cheaper promises to beat, the best one first."""
        drawn = self._allowed(fresh)
        promise = self._prior.promise([each.config for each in drawn])
        is_best = front(np.column_stack([promise, [self._cost(each.config) for each in drawn]]))
        order = sorted(np.flatnonzero(is_best), key=lambda place: promise[place])
        return [drawn[int(place)] for place in order[:N_PROMISING]]

    def _points(self, observations: Iterable[Observation]) -> Iterator[Drawn]:
        """Observations as points of the space; of a baseline, the point that is most like it."""
        for observation in observations:
            try:
                yield self.space.at(observation.point)
            except (SpaceError, ValueError):
                yield self._nearest(observation.config)

    def _found_near(self, config: PeftConfig) -> Drawn:
        rng = np.random.default_rng([self.seed, zlib.crc32(config.key.encode())])
        return nearest(self.space, rng, config)

    def _allowed(self, drawn: Iterable[Drawn]) -> list[Drawn]:
        """Those that keep the limits that are cheap to check.

        The head alone, which costs nothing, is left out of a search for what is nearly best.
        """
        allowed = [each for each in drawn if self._known.allows(each.config, slow=False)]
        placed = [each for each in allowed if each.config.placements]
        return (placed or allowed) if self._leads else allowed

    def _gains(
        self,
        belief: Belief,
        at_any_cost: bool,
        candidates: Sequence[PeftConfig],
        exact: Array | None = None,
    ) -> Array:
        """The hypervolume that each candidate is expected to add.

        Args:
            belief: what is expected of configurations.
            at_any_cost: whether only the measured losses span it.
            candidates: the configurations.
            exact: known losses, where they have been computed.
        """
        means, deviations = belief(candidates, exact)
        order = [*self._known.learned, *self._known.exact]
        references = np.array([self.objectives[i].worst for i in order])
        corner = corner_of(belief.observed, references)
        best, is_far = belief.reached.min(axis=0), np.zeros(len(means), bool)
        for column, index in enumerate(self._known.learned):
            if (within := self.objectives[index].within) is not None:
                corner[column] = min(corner[column], best[column] + within)
                is_far |= means[:, column] > best[column] + within
        n = len(self._known.learned) if at_any_cost else len(order)
        gains = expected_gain(belief.reached[:, :n], corner[:n], means[:, :n], deviations[:, :n])
        return np.where(is_far, HOPE * gains, gains)

    def _finalist(self, gains_of: Callable[..., Array], promising: Sequence[Drawn]) -> Drawn:
        """The best of candidates, the most promising ones first, by exact known losses."""
        allowed = (each for each in promising if self._known.allows(each.config, slow=True))
        first = list(islice(allowed, self._n_exact()))
        if not first:
            raise RuntimeError("no promising configuration is within the limits")
        configs = [each.config for each in first]
        exact = [self._known.row(c, [math.nan] * len(self.objectives)) for c in configs]
        return first[int(gains_of(configs, np.array(exact)).argmax())]

    def _n_exact(self) -> int:
        """How many candidates are compared by exact known losses."""
        if any(map(self._known.is_guessed, self._known.exact)):
            return N_EXACT
        return N_SURE if any(map(self._known.is_slow, self._known.exact)) else 1

    def _usable(self, observations: Sequence[Observation]) -> list[Observation]:
        """The observations whose known losses are all finite."""
        return [o for o in observations if np.isfinite(self._known.row(o.config, o.losses)).all()]

    def _anything(self, history: History, rng: np.random.Generator) -> Drawn:
        """A random configuration, unseen and within cheap limits where one is found."""
        drawn = [self.space.draw(rng) for _ in range(N_FALLBACK)]
        fresh = unseen(drawn, history.seen)
        with suppress(Exception):
            fresh = [*self._allowed(fresh), *fresh]
        return [*fresh, *drawn][0]


@cache
def _own_prior(objectives: tuple[Objective, ...], learned: tuple[int, ...], n_layers: int) -> Prior:
    """With what the trials that come with autopeft say; it is the same for all samplers."""
    return Prior(experience(objectives, n_layers), learned, n_layers)
