"""A space as large as AutoPEFT's, on which a surrogate of a table says how accurate a trial is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache, partial

import numpy as np
import torch
from botorch.fit import fit_gpytorch_mll
from botorch.models import SingleTaskGP
from botorch.models.transforms import Normalize
from gpytorch.mlls import ExactMarginalLogLikelihood
from numpy.typing import NDArray
from scipy.stats import spearmanr

from autopeft.core.config import PeftConfig
from autopeft.core.size import size_of
from autopeft.method.count import count
from autopeft.objective.array import Array
from autopeft.objective.pareto import front, hypervolume
from autopeft.objective.quantity import Known
from benchmarks.search.measure import SPACES, bound_space, config_of
from benchmarks.search.problem import BEYOND, COSTS, Problem, Table, last, tabular
from benchmarks.search.texts import TEXTS, tables

SPACE, METHODS = SPACES[1], ("lora", "adapter")
"""The space, and its methods in the order in which the sizes of a layer are decided."""

N_ROUNDS, N_CHILDREN = 100, 500
"""Of the search for the best hypervolume: rounds, and new points of each."""

Points = NDArray[np.int64]


class Model:
    """Accuracy from sizes, learned from a table of groups of layers.

    A Gaussian process of BoTorch with its defaults, on the logarithms of the sizes in every layer:
    neither its kernel nor its features are those of `bayes`.

    Args:
        table: in whose space a group is as many layers as it has groups in a layer of this one.
    """

    def __init__(self, table: Table) -> None:
        groups = np.array([list(map(int, point)) for point in table.rows]).reshape(
            len(table.rows), -1, 2
        )
        n_layers = table.space.n_layers
        layers = np.repeat(groups, n_layers // groups.shape[1], axis=1)
        levels, accuracy = _levels(layers), torch.from_numpy(table.column(last("accuracy")))
        scaled = Normalize(levels.shape[1])
        self._model = SingleTaskGP(levels, accuracy[:, None], input_transform=scaled)
        fit_gpytorch_mll(ExactMarginalLogLikelihood(self._model.likelihood, self._model))

    def __call__(self, points: Points) -> Array:
        """Accuracies of points `(n, 2 * n_layers)`."""
        with torch.no_grad():
            return np.asarray(self._model.posterior(_levels(points)).mean[:, 0].numpy())


def _levels(sizes: Points) -> torch.Tensor:
    return torch.log2(1 + torch.from_numpy(sizes.reshape(len(sizes), -1)).double())


class EveryLayer:
    """The space, with the surrogate of a table.

    Args:
        name: of the table.
    """

    def __init__(self, name: str) -> None:
        self.name, self.space = name, bound_space(SPACE)
        self.model = Model(Table(tables() / f"{name}.csv"))
        self._values = [np.array(d.values) for d in self.space.dimensions.values()]
        self._counts = [self._counts_of(place) for place in range(len(self._values))]

    @property
    def sizes(self) -> list[int]:
        """How many values every decision has."""
        return [len(values) for values in self._values]

    def problem(self) -> Problem:
        """Its accuracies and counts, references as in the table."""
        small = tabular(self.name, costs=COSTS)
        most = BEYOND * sum(counts[-1] for counts in self._counts)
        objectives = (small.objectives[0], replace(small.objectives[1], reference=most))
        shape = self.space.shape
        unscaled = Problem(
            f"{self.name}-every-layer",
            self.space,
            objectives,
            {COSTS[0]: Known(lambda config: count(config, shape).trainable)},
            self._of,
            best=1.0,
            first=tuple(int(values[0]) for values in self._values),
            earlier=small.earlier,
        )
        return replace(unscaled, best=self._best(unscaled))

    def _of(self, config: PeftConfig) -> tuple[float, ...]:
        sizes = np.zeros((self.space.n_layers, len(METHODS)), dtype=np.int64)
        for placement in config.placements:
            sizes[list(placement.layers), METHODS.index(placement.method)] = size_of(placement)
        return float(self.model(sizes.reshape(1, -1))[0]), float(
            count(config, self.space.shape).trainable
        )

    def _counts_of(self, place: int) -> Array:
        """Elements of every value of one decision; they add up over decisions."""
        nothing = [int(values[0]) for values in self._values]
        points = [(*nothing[:place], int(v), *nothing[place + 1 :]) for v in self._values[place]]
        configs = [config_of(self.space, point) for point in points]
        return np.array([float(count(config, self.space.shape).trainable) for config in configs])

    def _best(self, problem: Problem) -> float:
        """The hypervolume of the best that an evolution of many points on the surrogate finds."""
        rng = np.random.default_rng(0)
        n_places = len(self._values)
        best = np.zeros((1, n_places), dtype=np.int64)
        for _ in range(N_ROUNDS):
            parents = best[rng.integers(len(best), size=N_CHILDREN)]
            changed = rng.random(parents.shape) < rng.choice([1, 2, 4], (N_CHILDREN, 1)) / n_places
            drawn = np.column_stack([rng.integers(len(v), size=N_CHILDREN) for v in self._values])
            best = np.unique(np.concatenate([best, np.where(changed, drawn, parents)]), axis=0)
            best = best[front(self._losses(problem, best))]
        return hypervolume(self._losses(problem, best), problem.corner)

    def _losses(self, problem: Problem, places: Points) -> Array:
        """Of points given by the places of their values."""
        sizes = self._sizes_at(places)
        counts = sum(c[i] for c, i in zip(self._counts, places.T, strict=True))
        rows = zip(self.model(sizes), np.broadcast_to(counts, len(sizes)), strict=True)
        return np.array([problem.losses(row) for row in rows])

    def points(self, places: Points) -> list[dict[str, int]]:
        """Points by the places of their values, `(n, n_decisions)`."""
        names = list(self.space.dimensions)
        return [dict(zip(names, row, strict=True)) for row in self._sizes_at(places).tolist()]

    def _sizes_at(self, places: Points) -> Points:
        return np.column_stack([v[i] for v, i in zip(self._values, places.T, strict=True)])

    def error(self, trained: Table) -> tuple[float, float, float]:
        """Mean absolute error on trained rows, their mean deviation, and the rank correlation."""
        truth, modelled = trained.column(last("accuracy")), self.model(np.array(list(trained.rows)))
        deviation = np.abs(truth - truth.mean()).mean()
        correlation = float(spearmanr(truth, modelled).statistic)
        return float(np.abs(modelled - truth).mean()), float(deviation), correlation


@cache
def every_layer(name: str) -> Problem:
    """The problem on the surrogate of a table; one fit for all runs of a process."""
    return EveryLayer(name).problem()


EVERY_LAYER: Mapping[str, Callable[[], Problem]] = {
    f"{name}-every-layer": partial(every_layer, name) for name in TEXTS
}
"""By name."""
