"""What a search believes of configurations after a history."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from autopeft.core.config import PeftConfig
from autopeft.objective.array import Array
from autopeft.objective.known import KnownLosses
from autopeft.objective.pareto import front
from autopeft.search.features import Encoder
from autopeft.search.history import Observation
from autopeft.search.prior import Prior
from autopeft.search.surrogate import Surrogate
from autopeft.search.tempered import tempered

N_MOST = 300
"""Observations that a model is fitted to; of more, the latest and those nearest to the front."""


class Belief:
    """The distribution of the losses of configurations: normal where learned, exact where known.

    Columns of losses are the learned ones, then the known ones.

    Args:
        measured: configurations with finite known losses.
        pending: those that run, which are believed to come out as expected.
        known: the known objectives.
        others: configurations that will be asked about, so that features tell them apart.
        n_layers: of the backbone.
        prior: what earlier studies say.

    Attributes:
        reached: expected losses `(n, m)` that a gain is over: those of the measured, as far as they
            are learned from, and of the pending.
        observed: losses `(n, m)` of all measured, tempered, and of the pending.

    Raises:
        ValueError, RuntimeError: no model can be fitted to the losses.
    """

    def __init__(
        self,
        measured: Sequence[Observation],
        pending: Sequence[Observation],
        known: KnownLosses,
        others: Sequence[PeftConfig],
        n_layers: int,
        prior: Prior,
    ) -> None:
        self._known, self._prior = known, prior
        exact = np.array([known.row(o.config, o.losses) for o in [*measured, *pending]])
        columns = [[o.losses[i] for o in measured] for i in known.learned]
        losses = np.stack([tempered(np.array(column)) for column in columns], axis=1)
        doubts = np.array([[o.doubts[i] for i in known.learned] for o in measured])
        informative = [learned_from(loss, exact[: len(measured)]) for loss in losses.T]
        used = np.unique(np.concatenate(informative))
        configs = [o.config for o in [*(measured[i] for i in used), *pending]]
        self._encoder = Encoder([*configs, *others], n_layers)
        self._rows = self._encode(configs)
        self._exact = np.concatenate([exact[used], exact[len(measured) :]])
        waiting = self._rows[len(used) :]
        self._models = [
            self._model(np.searchsorted(used, picked), loss[picked], doubt[picked]).believing(
                waiting
            )
            for picked, loss, doubt in zip(informative, losses.T, doubts.T, strict=True)
        ]
        expected = np.stack([model(self._rows)[0] for model in self._models], axis=1)
        self.reached = np.column_stack([expected, self._exact])
        learned = np.concatenate([losses, expected[len(used) :]])
        self.observed = np.column_stack([learned, exact])

    def __call__(
        self, configs: Sequence[PeftConfig], exact: Array | None = None
    ) -> tuple[Array, Array]:
        """Means and deviations of the losses, each `(k, m)`; slow known ones are estimated.

        Args:
            configs: `k` of them.
            exact: known losses `(k, n_known)`, where they have been computed.
        """
        rows = self._encode(configs)
        if exact is None:
            exact = self._known.guess(configs, self._rows, self._exact, rows)
        posteriors = [model(rows) for model in self._models]
        means = np.column_stack([*(mean for mean, _ in posteriors), exact])
        variances = np.column_stack(
            [*(variance for _, variance in posteriors), np.zeros_like(exact)]
        )
        return means, np.sqrt(variances)

    def _model(self, places: NDArray[np.int64], losses: Array, doubts: Array) -> Surrogate:
        """Of one learned loss `(n,)` of the rows at `n` places."""
        rows = self._rows[places]
        weights = self._prior.weights(rows.shape[1] - len(self._prior), len(rows))
        return Surrogate(rows, losses, doubts, weights)

    def _encode(self, configs: Sequence[PeftConfig]) -> Array:
        """Features, what is known beforehand last."""
        return np.column_stack([self._encoder(configs), self._prior(configs)])


def learned_from(losses: Array, known: Array) -> NDArray[np.int64]:
    """Which observations a model of a loss learns from: all, or the `N_MOST` that tell most.

    Those are the latest half, and the best of the others, which the least loss among equally cheap
    ones beats by little.

    Args:
        losses: shape `(n,)`, NaN where there is none.
        known: shape `(n, n_known)`.
    """
    usable = np.flatnonzero(np.isfinite(losses))
    if len(usable) <= N_MOST:
        return usable
    losses, known = losses[usable], known[usable]
    best = front(np.column_stack([losses, known]))
    cheaper = (known[best][None, :, :] <= known[:, None, :]).all(axis=2)
    behind = losses - np.where(cheaper, losses[best][None, :], np.inf).min(axis=1)
    latest = N_MOST // 2
    closest = np.argsort(behind[:-latest], kind="stable")[: N_MOST - latest]
    return np.append(usable[np.sort(closest)], usable[-latest:])
