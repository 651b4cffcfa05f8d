"""Objectives that need no training: exact where they are cheap, estimated until they matter."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

import numpy as np

from autopeft.core.config import PeftConfig
from autopeft.core.errors import AutoPeftError
from autopeft.objective.array import Array
from autopeft.objective.objective import Objective
from autopeft.objective.quantity import Known

MOST = sys.float_info.max
"""The limit of what has none; NaN and infinity exceed it."""

N_REMEMBERED = 2**14
"""Values that are kept: those of the candidates of some proposals."""


class KnownLosses:
    """The known objectives of a study as losses; the latest `N_REMEMBERED` values are kept.

    Args:
        objectives: of the study; a known one without an entry in `known` has to be learned.
        known: how known objectives are computed, by name.
        limits: greatest values of known objectives, by name, as they are at each question.
    """

    def __init__(
        self,
        objectives: Sequence[Objective],
        known: Mapping[str, Known],
        limits: Mapping[str, float],
    ) -> None:
        self._objectives, self._known, self._limits = objectives, dict(known), limits
        self._value = lru_cache(N_REMEMBERED)(self._computed)
        is_exact = [o.known and o.name in known for o in objectives]
        self.exact = [i for i, exact in enumerate(is_exact) if exact]
        self.learned = [i for i, exact in enumerate(is_exact) if not exact]

    def is_slow(self, index: int) -> bool:
        """Whether the objective at an index of `exact` is slow."""
        return self._known[self._objectives[index].name].slow

    def is_guessed(self, index: int) -> bool:
        """Whether it is slow and nothing estimates it but its history."""
        return self.is_slow(index) and self._known[self._objectives[index].name].estimate is None

    @property
    def cheapest(self) -> int | None:
        """The first index of `exact` that is not slow."""
        return next((i for i in self.exact if not self.is_slow(i)), None)

    def loss(self, index: int, config: PeftConfig) -> float:
        """The loss of the objective at an index; NaN where the configuration does not fit."""
        objective = self._objectives[index]
        return objective.loss(self._value(objective.name, config))

    def row(self, config: PeftConfig, recorded: Sequence[float]) -> list[float]:
        """All exact losses of a configuration; those in `recorded`, unless NaN, are taken over."""
        return [
            recorded[i] if math.isfinite(recorded[i]) else self.loss(i, config) for i in self.exact
        ]

    def allows(self, config: PeftConfig, *, slow: bool) -> bool:
        """Whether a configuration fits and keeps the limits, as far as these are cheap to check.

        Args:
            config: the configuration.
            slow: whether those that are not cheap are checked, too.
        """
        needed = {*self._limits, *(self._objectives[i].name for i in self.exact)}
        names = [n for n in self._known if n in needed and (slow or not self._known[n].slow)]
        return all(self._value(n, config) <= self._limits.get(n, MOST) for n in names)

    def guess(
        self, candidates: Sequence[PeftConfig], old: Array, known: Array, new: Array
    ) -> Array:
        """Exact losses of candidates, the slow ones estimated.

        Args:
            candidates: `k` of them.
            old: features of the history, shape `(n, d)`.
            known: exact losses of the history, shape `(n, n_exact)`.
            new: features of the candidates, shape `(k, d)`.

        Returns:
            Shape `(k, n_exact)`.
        """
        guess = np.empty((len(candidates), len(self.exact)))
        for column, i in enumerate(self.exact):
            objective = self._objectives[i]
            quick = self._known[objective.name].estimate
            if quick is not None:
                guess[:, column] = [_estimated(objective, quick, config) for config in candidates]
            elif self.is_slow(i):
                guess[:, column] = estimate(old, known[:, column], new)
            else:
                guess[:, column] = [self.loss(i, config) for config in candidates]
        return guess

    def _computed(self, name: str, config: PeftConfig) -> float:
        try:
            return float(self._known[name].value(config))
        except AutoPeftError:
            return math.nan


def _estimated(
    objective: Objective, quick: Callable[[PeftConfig], float], config: PeftConfig
) -> float:
    """The loss that an estimate gives; infinite, which gains nothing, where it does not fit."""
    try:
        return objective.loss(quick(config))
    except AutoPeftError:
        return math.inf


def estimate(rows: Array, values: Array, queries: Array) -> Array:
    """Least squares with a little shrinkage, for values that are nearly sums of effects.

    Args:
        rows: features of shape `(n, d)`; `n` may be 0.
        values: of shape `(n,)`; rows with a value that is not finite do not count.
        queries: features of shape `(k, d)`.

    Returns:
        Estimates of shape `(k,)`.
    """
    usable = np.isfinite(values)
    rows, values = rows[usable], values[usable]
    if not len(values):
        return np.zeros(len(queries))
    centre, mean = rows.mean(axis=0), values.mean()
    centred = rows - centre
    gram = centred @ centred.T + 1e-3 * np.eye(len(rows))
    weights = np.linalg.solve(gram, values - mean)
    return np.asarray(mean + (queries - centre) @ centred.T @ weights)
