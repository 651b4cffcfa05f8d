"""What earlier studies say of configurations before they are trained."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from autopeft.core.config import PeftConfig
from autopeft.objective.array import Array
from autopeft.search.features import Encoder
from autopeft.search.history import Observation
from autopeft.search.surrogate import Surrogate, one_thread
from autopeft.search.tempered import tempered

N_LEAST = 8
"""Observations below which an earlier study says nothing."""

N_MOST = 300
"""Observations of an earlier study that are learned from, the latest ones."""

N_TRUSTED = 5
"""Trials of a new study up to which earlier ones keep their weight."""


class Prior:
    """What models of earlier studies expect, as numbers.

    What transfers is the order of configurations, not the loss: the columns are features, whose
    weight the data of the new study decide. The less a number, the more a configuration promises.

    Args:
        studies: the observations of each earlier study, losses in the order of the objectives.
        learned: indices of the objectives that are measured.
        n_layers: of the backbone.
    """

    def __init__(
        self, studies: Sequence[Sequence[Observation]], learned: Sequence[int], n_layers: int
    ) -> None:
        self._models: list[tuple[Encoder, Surrogate]] = []
        for observations in studies:
            for index in learned:
                measured = [o for o in observations if np.isfinite(o.losses[index])][-N_MOST:]
                if len(measured) >= N_LEAST:
                    encode = Encoder([o.config for o in measured], n_layers)
                    rows = encode([o.config for o in measured])
                    losses = tempered(np.array([o.losses[index] for o in measured]))
                    doubts = np.array([o.doubts[index] for o in measured])
                    with one_thread():
                        self._models.append((encode, Surrogate(rows, losses, doubts)))

    def __len__(self) -> int:
        return len(self._models)

    def __call__(self, configs: Sequence[PeftConfig]) -> Array:
        """Expected losses, `(len(configs), len(self))`.

        Of what a study has no trial of, such as another method, it expects its mean.
        """
        columns = np.zeros((len(configs), len(self)))
        for place, (encode, model) in enumerate(self._models):
            knows = np.array([encode.knows(config) for config in configs], bool)
            columns[:, place] = np.where(knows, model(encode(configs))[0], model.mean)
        return columns

    def promise(self, configs: Sequence[PeftConfig]) -> Array:
        """The sum of the columns, each in units of its deviation; shape `(len(configs),)`."""
        if not configs:
            return np.zeros(0)
        columns = self(configs)
        spread = columns.std(axis=0)
        return (columns / np.where(spread > 0, spread, 1.0)).sum(axis=1)

    def weights(self, n_features: int, n_trials: int) -> Array:
        """Those that a `Surrogate` is to expect of features of its own, then of these columns.

        At first each of these is to say as much as all others together; with the trials of the
        new study it falls like the error of a mean.

        Returns:
            Shape `(n_features + len(self),)`.
        """
        trust = (n_features + len(self)) / max(1.0, n_trials / N_TRUSTED) ** 0.5
        return np.append(np.ones(n_features), np.full(len(self), trust))
