"""What earlier studies, perhaps on other data, say of configurations."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from autopeft.core.config import PeftConfig
from autopeft.search.features import Encoder
from autopeft.search.history import Observation
from autopeft.search.surrogate import Surrogate, one_thread

N_LEAST = 8
"""Observations below which an earlier study says nothing."""

N_MOST = 300
"""Observations of an earlier study that are learned from, the latest ones."""

N_TRUSTED = 5
"""Trials of a new study up to which earlier ones keep their weight."""

Array = NDArray[np.float64]


class Prior:
    """The losses that models of earlier studies expect, each as a number per configuration.

    What transfers is the order of configurations, not the loss: the columns are features, whose
    weight the data of the new study decide.

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
                told = [o for o in observations if np.isfinite(o.losses[index])][-N_MOST:]
                if len(told) >= N_LEAST:
                    encode = Encoder([o.config for o in told], n_layers)
                    rows = encode([o.config for o in told])
                    losses = np.array([o.losses[index] for o in told])
                    doubts = np.array([o.doubts[index] for o in told])
                    with one_thread():
                        self._models.append((encode, Surrogate(rows, losses, doubts)))

    def __len__(self) -> int:
        return len(self._models)

    def __call__(self, configs: Sequence[PeftConfig]) -> Array:
        """Expected losses, shape `(len(configs), len(self))`.

        Of what a study has no trial of, such as another method, it expects its mean.
        """
        columns = np.zeros((len(configs), len(self)))
        for column, (encode, model) in zip(columns.T, self._models, strict=True):
            knows = np.array([encode.knows(config) for config in configs], bool)
            column[:] = np.where(knows, model(encode(configs))[0], model.mean)
        return columns

    def weights(self, n_features: int, n_trials: int) -> Array:
        """Those that a `Surrogate` is to expect of features of its own, then of these losses.

        At first each of the losses is to say as much as all other columns together; with the
        trials of the new study it falls like the error of a mean.

        Returns:
            Shape `(n_features + len(self),)`.
        """
        trust = (n_features + len(self)) / max(1.0, n_trials / N_TRUSTED) ** 0.5
        return np.append(np.ones(n_features), np.full(len(self), trust))
