"""One sampler on one problem with one seed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, median
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.trial import TrialState

from autopeft.core.config import PeftConfig
from autopeft.space.bound import BoundSpace, Drawn
from autopeft.space.dimension import Dimension
from benchmarks.search.problem import Problem

N_START = 3
"""Starting points, the same for all samplers of a seed: `Problem.first` and random ones."""

N_AGAIN = 20
"""Proposals in a row that have been tried before, until a random new one is taken instead."""

Make = Callable[[Problem, int], BaseSampler]


@dataclass(frozen=True)
class Course:
    """What a run did.

    Attributes:
        volumes: share of the greatest hypervolume after every trial.
        seconds: of a proposal in the last quarter, the median of the batches; None where all trials
            are starts.
        again: proposals that had been tried before; they cost nothing and do not count.
    """

    volumes: list[float]
    seconds: float | None
    again: int


@dataclass(frozen=True)
class Axes:
    """The decisions of a space as a sampler sees them.

    Peers get a list of values as whole numbers in its order, so that they know what is near;
    samplers of autopeft get the space as it is.
    """

    space: BoundSpace
    plain: bool

    def distributions(self) -> dict[str, BaseDistribution]:
        """For Optuna."""
        if self.plain:
            return self.space.distributions()
        return {name: _axis(d) for name, d in self.space.dimensions.items()}

    def params(self, drawn: Drawn) -> dict[str, Any]:
        """The point of a configuration."""
        if self.plain:
            return dict(drawn.point)
        dimensions = self.space.dimensions
        return {name: _place(dimensions[name], value) for name, value in drawn.point.items()}

    def config(self, params: Mapping[str, Any]) -> PeftConfig:
        """The configuration of a point."""
        if self.plain:
            return self.space.resolve(params)
        given = {name: _value(d, params[name]) for name, d in self.space.dimensions.items()}
        return self.space.resolve(given)


def _axis(dimension: Dimension) -> BaseDistribution:
    if dimension.values is None:
        return FloatDistribution(0.0, 1.0)
    return IntDistribution(0, len(dimension.values) - 1)


def _place(dimension: Dimension, value: Any) -> int | float:
    return dimension.to_unit(value) if dimension.values is None else dimension.index(value)


def _value(dimension: Dimension, place: Any) -> Any:
    return dimension.from_unit(place) if dimension.values is None else dimension.values[place]


def starts(problem: Problem, rng: np.random.Generator) -> list[Drawn]:
    """The starting points of a seed."""
    space, drawn = problem.space, dict[str, Drawn]()
    if problem.first is not None:
        first = space.at(dict(zip(space.dimensions, problem.first, strict=True)))
        drawn[first.config.key] = first
    while len(drawn) < N_START:
        more = space.draw(rng)
        drawn[more.config.key] = more
    return list(drawn.values())


class Race:
    """A study in memory that begins with the starting points of a seed.

    A sampler may propose several trials at a time; then the first of a `batch` takes all the time.
    """

    def __init__(
        self, problem: Problem, make: Make, seed: int, *, plain: bool, batch: int = 1
    ) -> None:
        self._problem, self._axes, self._batch = problem, Axes(problem.space, plain), batch
        self._rng = np.random.default_rng(seed)
        directions = [o.goal for o in problem.objectives]
        self._study = optuna.create_study(sampler=make(problem, seed), directions=directions)
        self._values: dict[str, tuple[float, ...]] = {}
        for start in starts(problem, self._rng):
            self._add(start)

    def run(self, n_trials: int) -> Course:
        """Runs until there are so many different trials, the starting points included."""
        seconds, again, in_a_row = [], 0, 0
        while len(self._values) < n_trials:
            start = time.perf_counter()
            trial = self._study.ask(self._axes.distributions())
            elapsed = time.perf_counter() - start
            config = self._axes.config(trial.params)
            known = config.key in self._values
            values = self._record(config)
            self._study.tell(trial, values)
            in_a_row = in_a_row + 1 if known else 0
            again += known
            if not known:
                seconds.append(elapsed)
            elif in_a_row >= N_AGAIN:
                self._add(self._fresh())
                in_a_row = 0
        volumes = self._problem.volumes(list(self._values.values()))
        return Course([round(v, 5) for v in volumes], self._late(seconds), again)

    def _late(self, seconds: Sequence[float]) -> float | None:
        starts = range(0, len(seconds), self._batch)
        per_batch = [mean(seconds[start : start + self._batch]) for start in starts]
        return round(median(per_batch[-len(per_batch) // 4 :]), 4) if per_batch else None

    def _fresh(self) -> Drawn:
        while True:
            drawn = self._problem.space.draw(self._rng)
            if drawn.config.key not in self._values:
                return drawn

    def _record(self, config: PeftConfig) -> tuple[float, ...]:
        if config.key not in self._values:
            self._values[config.key] = self._problem.values(config)
        return self._values[config.key]

    def _add(self, drawn: Drawn) -> None:
        trial = optuna.create_trial(
            params=self._axes.params(drawn),
            distributions=self._axes.distributions(),
            values=self._record(drawn.config),
            state=TrialState.COMPLETE,
        )
        self._study.add_trial(trial)
