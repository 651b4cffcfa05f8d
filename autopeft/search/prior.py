"""What earlier studies, perhaps on other data, say of configurations."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from autopeft.core.config import PeftConfig
from autopeft.search.features import Encoder, Name
from autopeft.search.history import Observation
from autopeft.search.surrogate import EXPECTED, Surrogate, one_thread

N_LEAST = 8
"""Observations below which an earlier study says nothing."""

N_MOST = 300
"""Observations of an earlier study that are learned from, the latest ones."""

Array = NDArray[np.float64]


class Prior:
    """The losses that models of earlier studies expect, each as a number per configuration.

    What transfers is the order of configurations, not the loss: the columns are features, whose
    weight the data of the new study decide. What matters in a configuration transfers as well: the
    hyperparameters of the models are what is expected of those of the new study.

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

    def expected(self, names: Sequence[Name]) -> Array:
        """What a `Surrogate` of the columns of these names, then of these losses, is to expect.

        Each of the losses is to say as much as all other columns together.
        """
        base = [model.learned[: len(EXPECTED)] for _, model in self._models]
        told: dict[Name, list[float]] = {}
        for encode, model in self._models:
            for name, weight in zip(encode.names, model.learned[len(EXPECTED) :], strict=True):
                told.setdefault(name, []).append(weight)
        weights = [float(np.mean(told.get(name, [0.0]))) for name in names]
        trust = [math.log(len(names) + len(self))] * len(self)
        return np.array([*(np.mean(base, axis=0) if base else EXPECTED), *weights, *trust])
