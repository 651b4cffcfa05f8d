"""What trained configurations are worth once all trials of a study have informed one another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from autopeft.core.config import PeftConfig
from autopeft.objective.array import Array
from autopeft.objective.objective import Objective
from autopeft.search.features import Encoder
from autopeft.search.surrogate import Surrogate, one_thread, tempered

N_LEAST = 8
"""Trials below which a loss is taken as it was measured."""


def expected_losses(
    configs: Sequence[PeftConfig], losses: Array, objectives: Sequence[Objective]
) -> Array:
    """The losses of trained configurations, with the luck of their training taken out.

    A Gaussian process of each measured objective tells what it expects where it has seen a value,
    so that the best of many noisy ones is not the luckiest. Known objectives stay as they are.

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
    n_layers = 1 + max((layer for c in configs for layer in c.layers), default=0)
    rows = Encoder(configs, n_layers)(configs)
    for column, objective in enumerate(objectives):
        if not objective.known:
            measured = tempered(expected[:, column])
            with one_thread():
                expected[:, column] = Surrogate(rows, measured, np.zeros(len(rows)))(rows)[0]
    return expected
