"""What a surrogate sees of configurations: how much of what stands where, and how it is trained."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autopeft.core.config import PeftConfig, Placement, Settings

SIZES = ("r", "size", "length")
"""The options that say how big a placement is; a method without one has the size 1."""

ANCHORS = 6
"""Depths at which a profile over the layers is read."""

Array = NDArray[np.float64]
Kind = tuple[str, Settings]


def features(configs: Sequence[PeftConfig], n_layers: int) -> Array:
    """Configurations as rows of numbers in [0, 1], comparable among each other only.

    They are computed from the configurations alone, so that baselines and trials of other spaces
    count as data. Columns, each dropped where it does not vary: for every kind of placement
    (method and options that are no numbers) the size over the depth, 0 where absent, else growing
    with its logarithm; for every method the share of layers that carry it and the size over all
    layers; every other number; every other setting as one column per value.

    Args:
        configs: those to compare, such as a history and its candidates.
        n_layers: of the backbone.

    Returns:
        Shape `(len(configs), n_columns)`; at least one column.
    """
    if not configs:
        return np.zeros((0, 1))
    blocks = [
        _profiles(configs, n_layers),
        _totals(configs, n_layers),
        *_settings([_numbers_of(config) for config in configs]),
        *_settings([{f"train.{k}": v for k, v in config.train} for config in configs]),
        *_settings([{f"backbone.{k}": v for k, v in config.backbone} for config in configs]),
    ]
    columns = np.concatenate(blocks, axis=1)
    varying = np.ptp(columns, axis=0) > 1e-9
    return columns[:, varying] if varying.any() else np.zeros((len(configs), 1))


def size_of(placement: Placement) -> float:
    """The size option of a placement, 1 where its method has none."""
    return next((float(value) for key, value in placement.options if key in SIZES), 1.0)


def _kind(placement: Placement) -> Kind:
    options = ((k, v) for k, v in placement.options if k not in SIZES and not _is_number(v))
    return placement.method, tuple((k, v) for k, v in options if v is not None)


def _profiles(configs: Sequence[PeftConfig], n_layers: int) -> Array:
    """Size of every kind at every anchor; `(n, n_kinds * n_anchors)`."""
    kinds = sorted({_kind(p) for config in configs for p in config.placements}, key=repr)
    sizes = np.zeros((len(configs), len(kinds), n_layers))
    for i, config in enumerate(configs):
        for placement in config.placements:
            layers = [layer for layer in placement.layers if layer < n_layers]
            sizes[i, kinds.index(_kind(placement)), layers] += size_of(placement)
    levels = _levels(sizes) @ _hats(n_layers)
    return np.asarray(levels.reshape(len(configs), -1))


def _totals(configs: Sequence[PeftConfig], n_layers: int) -> Array:
    """Share of layers and size over all layers of every method; `(n, 2 * n_methods)`."""
    methods = sorted({p.method for config in configs for p in config.placements})
    sums = np.zeros((len(configs), len(methods), 1))
    shares = np.zeros((len(configs), len(methods)))
    for i, config in enumerate(configs):
        for placement in config.placements:
            j = methods.index(placement.method)
            sums[i, j, 0] += size_of(placement) * len(placement.layers)
            shares[i, j] += len(placement.layers) / n_layers
    return np.concatenate([_levels(sums)[..., 0], np.minimum(shares, 1.0)], axis=1)


def _levels(sizes: Array) -> Array:
    """Sizes `(n, n_kinds, …)` to [0, 1]: 0 where absent, else linear in the logarithm."""
    largest = sizes.max(axis=tuple(i for i in range(sizes.ndim) if i != 1), initial=1.0)
    scale = 1.0 + np.log2(np.maximum(largest, 1.0))
    levels = np.where(sizes > 0, 1.0 + np.log2(np.maximum(sizes, 1.0)), 0.0)
    return np.asarray(levels / scale.reshape(1, -1, *[1] * (sizes.ndim - 2)))


def _hats(n_layers: int) -> Array:
    """Overlapping weights that read a profile at evenly spaced depths; `(n_layers, n_anchors)`."""
    n_anchors = min(ANCHORS, n_layers)
    if n_anchors <= 1:
        return np.full((n_layers, 1), 1.0 / n_layers)
    position = np.linspace(0.0, n_anchors - 1.0, n_layers)
    weights = np.maximum(1.0 - np.abs(position[:, None] - np.arange(n_anchors)), 0.0)
    return np.asarray(weights / weights.sum(axis=0))


def _numbers_of(config: PeftConfig) -> dict[str, float]:
    """The numeric options beside the size, averaged over the layers they hold on."""
    sums: dict[str, list[float]] = {}
    for placement in config.placements:
        for key, value in placement.options:
            if key not in SIZES and _is_number(value):
                entry = sums.setdefault(f"{placement.method}.{key}", [0.0, 0.0])
                entry[0] += float(value) * len(placement.layers)
                entry[1] += len(placement.layers)
    return {name: total / layers for name, (total, layers) in sums.items() if layers}


def _settings(rows: Sequence[Mapping[str, Any]]) -> Iterable[Array]:
    """One block of columns per name; `(n, 1)` for numbers, `(n, n_values)` for the others."""
    for name in sorted({key for row in rows for key in row}):
        values = [row.get(name) for row in rows]
        if any(_is_number(value) for value in values):
            yield _number_column(values)[:, None]
        else:
            known = sorted({repr(value) for value in values})
            yield np.array([[float(repr(v) == k) for k in known] for v in values])


def _number_column(values: Sequence[Any]) -> Array:
    """Numbers to [0, 1], by their logarithm where they span decades; others stand in the middle."""
    column = np.array([float(v) if _is_number(v) else math.nan for v in values])
    low, high = np.nanmin(column), np.nanmax(column)
    if low > 0 and high / low >= 8:
        column, low, high = np.log(column), math.log(low), math.log(high)
    scaled = (column - low) / (high - low) if high > low else np.full(len(column), 0.5)
    return np.nan_to_num(scaled, nan=0.5)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
