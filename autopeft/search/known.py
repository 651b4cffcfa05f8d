"""Objectives that need no training: exact where they are cheap, estimated until they matter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autopeft.core.config import PeftConfig

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Known:
    """How a known objective is computed.

    Attributes:
        value: the value of a configuration in the user's unit; the same for the same one.
        slow: whether a value takes long enough (some 10 ms) to compute only a few.
    """

    value: Callable[[PeftConfig], float]
    slow: bool = False


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
