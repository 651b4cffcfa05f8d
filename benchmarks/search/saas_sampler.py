"""The optimizer of AutoPEFT as a sampler of Optuna, rebuilt from parts of BoTorch."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from botorch.acquisition.multi_objective.monte_carlo import qNoisyExpectedHypervolumeImprovement
from botorch.fit import fit_fully_bayesian_model_nuts
from botorch.models import ModelListGP
from botorch.models.fully_bayesian import SaasFullyBayesianSingleTaskGP
from optuna.distributions import BaseDistribution, IntDistribution
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState
from scipy.stats import norm

from autopeft.objective.array import Array
from autopeft.objective.objective import Objective
from autopeft.objective.pareto import front
from benchmarks.search.whole_point import WholePointSampler

BATCH = 4
WARMUP, SAMPLES, THINNING = 256, 128, 16
N_STARTS, N_EVALUATIONS = 10, 1000
LEAST_QUANTILE = 1e-4


class SaasSampler(WholePointSampler):
    """Proposes four points at a time, as the published settings do.

    Every objective, the known ones too, is learned by a fully Bayesian Gaussian process with the
    SAAS prior (NUTS, 256 steps of warm-up and 128 samples, every 16th kept) on ranks that are
    mapped to normal scores. The noisy expected gain of hypervolume is climbed from ten neighbours
    of the front with 1,000 evaluations.

    Args:
        objectives: in the order of the study's directions.
        distributions: of the study, whole numbers or real ones.
        seed: of all randomness.

    References:
        Zhou et al. 2024, AutoPEFT: Automatic Configuration Search for Parameter-Efficient
        Fine-Tuning, TACL. Eriksson and Jankowiak 2021, High-dimensional Bayesian optimization with
        sparse axis-aligned subspaces.
    """

    def __init__(
        self,
        objectives: tuple[Objective, ...],
        distributions: dict[str, BaseDistribution],
        seed: int,
    ) -> None:
        super().__init__(distributions)
        self._objectives, self._seed = objectives, seed
        self._rng = np.random.default_rng(seed)
        self._queue: list[Array] = []

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The next point of a batch."""
        import jax  # needs the extra `benchmark`

        if not self._queue:
            done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self._queue = self._batch(done)
            jax.clear_caches()  # each size of the history is compiled anew, which adds up
        point = self._queue.pop(0)
        named = zip(self._distributions.items(), point, strict=True)
        return {name: _value(distribution, unit) for (name, distribution), unit in named}

    def _batch(self, trials: list[FrozenTrial]) -> list[Array]:
        units = np.array([[_unit(d, t.params[n]) for n, d in self._items] for t in trials])
        losses = np.array(
            [[o.loss(v) for o, v in zip(self._objectives, t.values, strict=True)] for t in trials]
        )
        worst = np.array([[o.worst for o in self._objectives]])
        scores, corner = _scores(losses, losses), _scores(losses, worst)[0]
        known = torch.from_numpy(units)
        gain = qNoisyExpectedHypervolumeImprovement(
            self._model(known, scores, len(trials)),
            ref_point=corner.tolist(),
            X_baseline=known,
            prune_baseline=True,
        )
        best, seen = units[front(losses)], {tuple(row) for row in units}
        chosen: list[Array] = []
        for _ in range(BATCH):
            chosen.append(self._climb(gain, best, seen))
            seen.add(tuple(chosen[-1]))
            gain.set_X_pending(torch.from_numpy(np.array(chosen)))
        return chosen

    @property
    def _items(self) -> list[tuple[str, BaseDistribution]]:
        return list(self._distributions.items())

    def _model(self, units: torch.Tensor, scores: Array, n: int) -> ModelListGP:
        models = []
        for column in scores.T:
            models.append(SaasFullyBayesianSingleTaskGP(units, torch.from_numpy(column)[:, None]))
            fit_fully_bayesian_model_nuts(
                models[-1],
                warmup_steps=WARMUP,
                num_samples=SAMPLES,
                thinning=THINNING,
                disable_progbar=True,
                seed=self._seed * 1000 + n,
            )
        return ModelListGP(*models)

    def _climb(
        self,
        gain: qNoisyExpectedHypervolumeImprovement,
        best: Array,
        seen: set[tuple[float, ...]],
    ) -> Array:
        """The best unseen point that climbs from near the front meet."""
        met: dict[tuple[float, ...], float] = {}
        for _ in range(N_STARTS):
            here = self._near(best[self._rng.integers(len(best))])
            for _ in range(N_EVALUATIONS // N_STARTS // len(here)):
                near = np.array([self._near(here) for _ in here])
                with torch.no_grad():
                    values = gain(torch.from_numpy(np.vstack([here, near]))[:, None]).numpy()
                met |= zip(map(tuple, near), values[1:], strict=True)
                if values.argmax() > 0:
                    here = near[values.argmax() - 1]
        fresh = [point for point in met if point not in seen]
        return np.array(max(fresh, key=lambda point: met[point]))

    def _near(self, point: Array) -> Array:
        """A point of which one coordinate is another."""
        moved = point.copy()
        place = int(self._rng.integers(len(point)))
        distribution = self._items[place][1]
        if isinstance(distribution, IntDistribution):
            levels = np.linspace(0, 1, distribution.high - distribution.low + 1)
            others = levels[np.abs(levels - point[place]) > 1e-9]
            moved[place] = self._rng.choice(others)
        else:
            moved[place] = np.clip(moved[place] + self._rng.normal(0, 0.2), 0, 1)
        return moved


def _scores(losses: Array, rows: Array) -> Array:
    """Normal scores of the ranks of `rows` among `losses`, the larger the better."""
    shares = (losses[None, :, :] >= rows[:, None, :]).mean(axis=1)
    return np.asarray(norm.ppf(np.clip(shares, LEAST_QUANTILE, 1 - LEAST_QUANTILE)))


def _unit(distribution: BaseDistribution, value: float) -> float:
    assert hasattr(distribution, "low")
    return float((value - distribution.low) / (distribution.high - distribution.low))


def _value(distribution: BaseDistribution, unit: float) -> int | float:
    assert hasattr(distribution, "low")
    value = distribution.low + unit * (distribution.high - distribution.low)
    return round(value) if isinstance(distribution, IntDistribution) else float(value)
