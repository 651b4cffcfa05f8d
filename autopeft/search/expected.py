"""What trained configurations are worth once all trials of a study have informed one another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from autopeft.core.config import PeftConfig
from autopeft.objective.array import Array
from autopeft.objective.objective import Objective
from autopeft.search.features import Encoder
from autopeft.search.tempered import tempered

N_LEAST = 8
"""Trials below which a loss is taken as it was measured."""


def expected_losses(
    configs: Sequence[PeftConfig], losses: Array, objectives: Sequence[Objective]
) -> Array:
    """The losses of trained configurations, with much of the luck of their training taken out.

    They lie half way between what was measured and what a Gaussian process of all trials expects
    there: the one holds the luck of a training, the other nothing of what is special about a
    configuration. Known objectives stay as they are.

    Args:
        configs: `n` of them.
        losses: shape `(n, m)`, finite.
        objectives: `m` of them.

    Returns:
        Shape `(n, m)`.
    """
    expected = np.array(losses, dtype=np.float64)
    if len(configs) < N_LEAST:
        return expected
    from autopeft.search.surrogate import Surrogate, one_thread  # imports torch

    n_layers = 1 + max((layer for c in configs for layer in c.layers), default=0)
    rows = Encoder(configs, n_layers)(configs)
    for column, objective in enumerate(objectives):
        if not objective.known:
            measured = tempered(expected[:, column])
            with one_thread():
                believed = Surrogate(rows, measured, np.zeros(len(rows)))(rows)[0]
            expected[:, column] = (expected[:, column] + believed) / 2
    return expected
