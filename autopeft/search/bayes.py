"""`BayesSampler`: Bayesian optimisation over configurations, with exact known objectives."""

from __future__ import annotations

import math
import warnings
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from botorch.acquisition.logei import qLogNoisyExpectedImprovement
from botorch.acquisition.multi_objective import logei
from botorch.acquisition.multi_objective.logei import qLogNoisyExpectedHypervolumeImprovement
from botorch.fit import fit_gpytorch_mll
from botorch.models import ModelList, SingleTaskGP
from botorch.models.deterministic import GenericDeterministicModel
from botorch.models.model import Model
from botorch.models.transforms.input import FilterFeatures
from botorch.sampling.get_sampler import get_sampler
from gpytorch.mlls import ExactMarginalLogLikelihood
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import Study
from optuna.trial import FrozenTrial

from autopeft.core.config import PeftConfig
from autopeft.core.errors import StudyError
from autopeft.objective.objective import Objective
from autopeft.objective.pareto import front
from autopeft.search.candidates import candidates, spread, thrifty, unseen
from autopeft.search.features import features
from autopeft.search.history import History, Observation, read_history
from autopeft.search.known import Known, KnownLosses

if TYPE_CHECKING:
    from autopeft.space.bound import BoundSpace

N_EXACT = 8
"""For how many promising candidates slow known objectives are computed."""

N_FALLBACK = 64
"""How many random configurations are drawn where no model helps."""

N_FIT = 80
"""Steps of the optimiser of the model's hyperparameters at most."""

N_SAMPLES = 32
"""Draws from the posterior that the acquisition averages over."""

Array = NDArray[np.float64]

logei._load_attempted = True  # else BoTorch compiles C++ at the first use, for some seconds


@dataclass(frozen=True)
class Points:
    """Configurations as the acquisition needs them.

    Attributes:
        rows: features, shape `(n, d)`.
        known: losses of the known objectives, shape `(n, k)`.
    """

    rows: Array
    known: Array

    def __getitem__(self, index: Any) -> Points:
        return Points(self.rows[index], self.known[index])

    def tensor(self) -> torch.Tensor:
        """Features and negated known losses side by side, shape `(n, d + k)`, float64."""
        return torch.from_numpy(np.concatenate([self.rows, -self.known], axis=1))


class Gain:
    """How much a candidate is expected to add to the hypervolume of what is observed and pending.

    Measured losses are random functions of the features, with noise that is inferred; known losses
    are exact. With a single objective it is the expected improvement.

    Args:
        observed: `n` points.
        losses: measured losses of the observed points, shape `(n, l)`, NaN where there is none.
        pending: points that are being measured.
        corner: worst losses that count, measured ones first, shape `(l + k,)`.

    Raises:
        ValueError, RuntimeError: no model can be fitted to the losses.
    """

    def __init__(self, observed: Points, losses: Array, pending: Points, corner: Array) -> None:
        n_features, n_known = observed.rows.shape[1], observed.known.shape[1]
        mean, std = np.nanmean(losses, axis=0), np.nanstd(losses, axis=0)
        std = np.where(std > 0, std, 1.0)
        points = observed.tensor()
        models = [_fit(points, column, n_features) for column in ((mean - losses) / std).T]
        if n_known:
            models.append(_exact(n_features, n_known))
        model = ModelList(*models) if len(models) > 1 else models[0]
        scaled = np.append((mean - corner[: len(mean)]) / std, -corner[len(mean) :])
        self.acquisition = _acquisition(model, points, pending, scaled)

    def __call__(self, candidates: Points) -> Array:
        """The logarithm of the gain of every candidate by itself, shape `(n,)`."""
        with torch.no_grad():
            gains = self.acquisition(candidates.tensor()[:, None, :])
        if not torch.isfinite(gains).all():
            raise RuntimeError("the acquisition is not finite")
        return np.asarray(gains.numpy())


def _fit(points: torch.Tensor, targets: Array, n_features: int) -> Model:
    """A Gaussian process on the first `n_features` columns of the points with a finite target."""
    usable = torch.from_numpy(np.isfinite(targets))
    model = SingleTaskGP(
        points[usable],
        torch.from_numpy(targets)[usable][:, None],
        input_transform=FilterFeatures(torch.arange(n_features)),
        outcome_transform=None,
    )
    likelihood = ExactMarginalLogLikelihood(model.likelihood, model)
    fit_gpytorch_mll(likelihood, optimizer_kwargs={"options": {"maxiter": N_FIT}})
    return model


def _exact(n_features: int, n_known: int) -> Model:
    """A model without uncertainty that reads the known objectives from the last columns."""
    return GenericDeterministicModel(lambda x: x[..., n_features:], num_outputs=n_known)


def _acquisition(model: Model, points: torch.Tensor, pending: Points, corner: Array) -> Any:
    """Noisy expected improvement, of the hypervolume where there are several objectives.

    The logarithmic forms still tell candidates apart where the improvement underflows (Ament et
    al. 2023, Unexpected Improvements to Expected Improvement for Bayesian Optimization).
    """
    waiting = pending.tensor() if len(pending.rows) else None
    sampler = get_sampler(
        model.posterior(points),
        torch.Size([N_SAMPLES]),
        seed=int(torch.randint(2**31, ()).item()),
    )
    if len(corner) == 1:
        return qLogNoisyExpectedImprovement(model, points, sampler, X_pending=waiting)
    return qLogNoisyExpectedHypervolumeImprovement(
        model,
        corner.tolist(),
        points,
        sampler,
        X_pending=waiting,
        prune_baseline=True,
        cache_root=False,
    )


class BayesSampler(BaseSampler):
    """Proposes the unseen configuration with the largest expected gain of hypervolume.

    A Gaussian process learns the measured objectives from features of the configurations; known
    objectives enter the hypervolume exactly. Candidates are random configurations and neighbours
    of the Pareto set. A decision depends on the seed, the trial's number and the history alone.
    Trials may carry the user attributes `config`, `known` and `reports` of a study's record; in
    plain Optuna the parameters and values serve. Numerical trouble never ends a study: the trial
    is then a random unseen configuration and its user attribute `fallback` says why.

    Args:
        space: where candidates come from.
        objectives: in the order of the study's directions.
        known: how known objectives are computed, by name; a known objective that is not among
            them is learned.
        limits: greatest values of known objectives, by name; candidates beyond are left out.
        seed: of all randomness.
        n_startup: with how many trials, running ones included, the model begins; baselines are
            not among them, since they say little about the space.

    References:
        Daulton, Balandat, Bakshy, Parallel Bayesian Optimization of Multiple Noisy Objectives with
        Expected Hypervolume Improvement, 2021, equation 3.
        Hvarfner, Hellsten, Nardi, Vanilla Bayesian Optimization Performs Great in High Dimensions,
        2024 (the prior on length scales).
    """

    def __init__(
        self,
        space: BoundSpace,
        objectives: Sequence[Objective],
        known: Mapping[str, Known] | None = None,
        limits: Mapping[str, float] | None = None,
        *,
        seed: int = 0,
        n_startup: int | None = None,
    ) -> None:
        self.space, self.objectives, self.seed = space, tuple(objectives), seed
        self._known = KnownLosses(self.objectives, known or {}, limits or {})
        if not self._known.learned:
            raise StudyError("bayes needs an objective that training measures", "objectives")
        self._distributions = {n: d for n, d in space.distributions().items() if not d.single()}
        default = max(8, round(2 * len(self._distributions) ** 0.5))
        self.n_startup = default if n_startup is None else n_startup

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
            point = self._point(self.choose(history, rng, trial.number))
        except Exception as error:  # whatever a model stumbles over, the study goes on
            point = self._point(self._anything(history, rng))
            reason = f"{type(error).__name__}: {error}"[:500]
            warnings.warn(f"trial {trial.number} is random, for {reason}", stacklevel=2)
            study._storage.set_trial_user_attr(trial._trial_id, "fallback", reason)
        return {name: point[name] for name in search_space if name in point}

    def _point(self, config: PeftConfig) -> dict[str, Any]:
        point = self.space.assign(config)
        if point is None:
            raise RuntimeError("the space does not contain the chosen configuration")
        return point

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

    def choose(self, history: History, rng: np.random.Generator, number: int) -> PeftConfig:
        """The configuration to try after a history; `number` counts the decisions before it.

        Raises:
            RuntimeError: the space is exhausted, or the model cannot be fitted.
        """
        n_observed, n_pending = len(history.observed) - history.n_baselines, len(history.pending)
        if n_observed + n_pending < self.n_startup or n_observed < self.n_startup // 2:
            return self._first(history, rng, number)
        return self._best(history, rng)

    def _first(self, history: History, rng: np.random.Generator, index: int) -> PeftConfig:
        """A configuration of a wanted cost, unlike the others."""
        cheapest = self._known.cheapest
        cost = (lambda config: 0.0) if cheapest is None else partial(self._known.loss, cheapest)
        found = list(self._known.within(thrifty(self.space, cost, history.seen, rng), slow=False))
        taken = [o.config for o in (*history.observed, *history.pending)]
        rows = features([*taken, *found], self.space.n_layers)
        costs = np.array([cost(config) for config in found])
        for _ in range(min(len(found), N_EXACT)):
            place = spread(index, costs, rows[len(taken) :], rows[: len(taken)])
            if any(self._known.within([found[place]], slow=True)):
                return found[place]
            del found[place]
            costs, rows = np.delete(costs, place), np.delete(rows, len(taken) + place, axis=0)
        raise RuntimeError("no unseen configuration within the limits was found")

    def _best(self, history: History, rng: np.random.Generator) -> PeftConfig:
        """The candidate of the largest gain; slow known losses are first estimated."""
        measured, pending = self._usable(history.observed), self._usable(history.pending)
        n, before = len(measured), [*measured, *pending]
        known = np.array([self._known.row(o.config, o.losses) for o in before])
        losses = np.array([[o.losses[i] for i in self._known.learned] for o in measured])
        both = np.column_stack([losses, known[:n]])
        elites = [before[i].config for i in np.flatnonzero(front(both))]
        near = candidates(self.space, elites, history.seen, rng)
        found = list(self._known.within(near, slow=False))
        if not found:
            raise RuntimeError("no unseen configuration within the limits was found")
        rows = features([*(o.config for o in before), *found], self.space.n_layers)
        old = Points(rows[: len(before)], known)
        new = Points(rows[len(before) :], self._known.guess(found, rows, known))
        with _quiet(int(rng.integers(2**31))):
            gain = Gain(old[:n], losses, old[n:], self._corner(both))
            return self._finalist(found, new, gain)

    def _finalist(self, found: Sequence[PeftConfig], new: Points, gain: Gain) -> PeftConfig:
        """The best of the most promising candidates, once their slow known losses are exact."""
        order = np.argsort(-gain(new), kind="stable")[: 4 * N_EXACT]
        place = {found[i].key: i for i in order}
        fitting = self._known.within([found[i] for i in order], slow=True)
        first = list(
            islice(fitting, N_EXACT if any(map(self._known.is_slow, self._known.exact)) else 1)
        )
        if not first:
            raise RuntimeError("no promising configuration is within the limits")
        if len(first) == 1:
            return first[0]
        exact = np.array([self._known.row(c, [math.nan] * len(self.objectives)) for c in first])
        gains = gain(Points(new.rows[[place[c.key] for c in first]], exact))
        return first[int(gains.argmax())]

    def _usable(self, observations: Sequence[Observation]) -> list[Observation]:
        """The observations whose known losses are all finite."""
        return [o for o in observations if np.isfinite(self._known.row(o.config, o.losses)).all()]

    def _corner(self, losses: Array) -> Array:
        """Worst losses that count: the references of the objectives, measured ones first.

        Where nothing observed is better than a reference, a little beyond all that is observed.
        """
        low, high = np.nanmin(losses, axis=0), np.nanmax(losses, axis=0)
        order = [*self._known.learned, *self._known.exact]
        wanted = np.array([self.objectives[i].loss(self.objectives[i].reference) for i in order])
        return np.where(wanted > low, wanted, high + 0.1 * np.where(high > low, high - low, 1.0))

    def _anything(self, history: History, rng: np.random.Generator) -> PeftConfig:
        """A random configuration, unseen and within cheap limits where one is found."""
        drawn = [self.space.sample(rng) for _ in range(N_FALLBACK)]
        fresh = unseen(drawn, history.seen)
        with suppress(Exception):
            fresh = [*self._known.within(fresh, slow=False), *fresh]
        return [*fresh, *drawn][0]


@contextmanager
def _quiet(seed: int) -> Iterator[None]:
    """Seeds torch and takes one thread, so that sums do not depend on the number of cores.

    The state of torch is restored afterwards; advice of BoTorch is not shown.
    """
    n_threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(n_threads)
