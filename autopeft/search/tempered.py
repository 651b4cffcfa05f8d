"""Losses of trainings that collapsed."""

from __future__ import annotations

import numpy as np

from autopeft.objective.array import Array

N_TEMPERED, OUTLYING = 4, 2.0
"""From how many losses on bad ones are tempered, and how much further from the median than the
best one they may lie."""


def tempered(losses: Array) -> Array:
    """Losses `(n,)`, those of trainings that collapsed brought close behind the others.

    Few of them would else decide what a model takes for large and small.
    """
    finite = losses[np.isfinite(losses)]
    if len(finite) < N_TEMPERED:
        return losses
    middle = float(np.median(finite))
    return np.minimum(losses, middle + OUTLYING * (middle - finite.min()))
