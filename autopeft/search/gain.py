"""The hypervolume that a candidate is expected to add, exactly."""

from __future__ import annotations

import numpy as np
import torch
from botorch.utils.multi_objective.box_decompositions.non_dominated import (
    FastNondominatedPartitioning,
)
from scipy.special import ndtr

from autopeft.objective.array import Array

_ROOT = np.sqrt(2 * np.pi)


def expected_gain(front: Array, corner: Array, means: Array, deviations: Array) -> Array:
    """The expected gain of hypervolume of every candidate by itself.

    The losses of a candidate are independent and normal; a deviation of 0 makes one exact. The
    part of the loss space that no row of the front dominates is cut into boxes, in each of which
    the expectation is a product.

    Args:
        front: losses, shape `(n, m)`; dominated rows do no harm, rows beyond the corner do not
            count, and `n` may be 0.
        corner: worst losses that count, shape `(m,)`.
        means: of the losses of the candidates, shape `(k, m)`.
        deviations: their standard deviations, shape `(k, m)`.

    Returns:
        Shape `(k,)`.

    References:
        Yang et al., Efficient Computation of Expected Hypervolume Improvement Using Box
        Decomposition Algorithms, 2019, equation 11.
    """
    gains = np.zeros(len(means))
    for low, high in _boxes(front, corner):
        part = np.ones(len(means))
        for j in range(len(corner)):
            mean, deviation = means[:, j], deviations[:, j]
            part *= _shortfall(high[j], mean, deviation) - _shortfall(low[j], mean, deviation)
        gains += part
    return gains


def corner_of(losses: Array, references: Array) -> Array:
    """Worst losses that count: the references, but at most a little beyond all that is observed.

    From a far corner whatever is cheap would seem to gain most, however bad.

    Args:
        losses: that are observed, shape `(n, m)`.
        references: the worst that still count, shape `(m,)`.
    """
    low, high = np.nanmin(losses, axis=0), np.nanmax(losses, axis=0)
    beyond = high + 0.1 * np.where(high > low, high - low, 1.0)
    return np.where(references > low, np.minimum(references, beyond), beyond)


def _boxes(front: Array, corner: Array) -> list[tuple[Array, Array]]:
    """Lower and upper ends, each `(m,)`, of disjoint boxes that make up what is not dominated."""
    inside = front[(front < corner).all(axis=1)] if len(front) else front
    if len(corner) == 1:
        return [(np.array([-np.inf]), inside.min(axis=0, initial=corner[0]))]
    if not len(inside):
        return [(np.full(len(corner), -np.inf), corner)]
    partition = FastNondominatedPartitioning(-torch.from_numpy(corner), -torch.from_numpy(inside))
    ends = -partition.hypercell_bounds.numpy()
    return list(zip(ends[1], ends[0], strict=True))


def _shortfall(level: float, means: Array, deviations: Array) -> Array:
    """The expectation of max(level - loss, 0) of every candidate, shape `(k,)`."""
    if level == -np.inf:
        return np.zeros(len(means))
    distance = np.maximum(level - means, -1e100)  # a loss that is infinite gains nothing
    z = distance / np.where(deviations > 0, deviations, 1.0)
    uncertain = distance * ndtr(z) + deviations * np.exp(-z * z / 2) / _ROOT
    return np.where(deviations > 0, np.maximum(uncertain, 0.0), np.maximum(distance, 0.0))
