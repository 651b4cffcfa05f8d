"""What a surrogate sees of configurations: how much of what stands where, and how it is trained."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np

from autopeft.core.config import LEARNING_RATE, PeftConfig, Placement, Settings
from autopeft.core.options import is_finite
from autopeft.core.settings import BackboneSettings, TrainSettings
from autopeft.core.size import size_of, size_option
from autopeft.objective.array import Array

N_REMEMBERED = 2**14
"""Configurations whose parts are kept, since every proposal asks several times."""

ANCHORS = 6
"""Depths at which a profile over the layers is read."""

_TRAIN, _BACKBONE = TrainSettings().model_dump(), BackboneSettings().model_dump()
"""The settings of a configuration that says nothing else."""

Kind = tuple[str, Settings]


class Encoder:
    """Turns configurations into rows of numbers in [0, 1].

    They are computed from the configurations alone, so that baselines and trials of other spaces
    count as data. Columns, each dropped where it does not vary: for every kind of placement
    (method and options that are no numbers) the size over the depth, 0 where absent, else growing
    with its logarithm; for every method the share of layers that carry it and the size over all
    layers; every other number; every other setting as one column per value.

    Args:
        configs: those that decide on columns and scales, such as a history and some candidates.
        n_layers: of the backbone.
    """

    def __init__(self, configs: Sequence[PeftConfig], n_layers: int) -> None:
        placements = [p for config in configs for p in config.placements]
        self._n_layers, self._hats = n_layers, _hats(n_layers)
        self._kinds = {k: i for i, k in enumerate(sorted(set(map(kind_of, placements)), key=repr))}
        self._methods = {m: i for i, m in enumerate(sorted({p.method for p in placements}))}
        self._settings = [_Setting.of(name, rows) for name, rows in _settings(configs)]
        sizes, sums, _ = self._read(configs)
        self._scales = _scales(sizes), _scales(sums)
        varies = np.ptp(self._columns(configs), axis=0) > 1e-9 if configs else np.zeros(0)
        self._varying = varies.astype(bool)

    def __call__(self, configs: Sequence[PeftConfig]) -> Array:
        """Rows of shape `(len(configs), n_columns)`, with one column at least.

        What none of the deciding configurations has does not show.
        """
        if not self._varying.any() or not configs:
            return np.zeros((len(configs), max(1, int(self._varying.sum()))))
        return np.clip(self._columns(configs)[:, self._varying], 0.0, 1.0)

    def knows(self, config: PeftConfig) -> bool:
        """Whether every kind of placement occurs in a deciding configuration."""
        return all(kind_of(placement) in self._kinds for placement in config.placements)

    def _columns(self, configs: Sequence[PeftConfig]) -> Array:
        sizes, sums, shares = self._read(configs)
        levels = _levels(sizes, self._scales[0]) @ self._hats
        named = [_named(config) for config in configs]
        blocks = [levels.reshape(len(configs), levels.shape[1] * levels.shape[2])]
        blocks += [_levels(sums, self._scales[1])[..., 0], np.minimum(shares, 1.0)]
        blocks += [setting.columns(named) for setting in self._settings]
        return np.concatenate(blocks, axis=1)

    def _read(self, configs: Sequence[PeftConfig]) -> tuple[Array, Array, Array]:
        """Sizes by kind and layer, and by method their sum, and the share of layers.

        Shapes: `(n, n_kinds, n_layers)`, `(n, n_methods, 1)` and `(n, n_methods)`.
        """
        sizes = np.zeros((len(configs), len(self._kinds), self._n_layers))
        sums = np.zeros((len(configs), len(self._methods), 1))
        shares = np.zeros((len(configs), len(self._methods)))
        for i, config in enumerate(configs):
            by_kind, by_method = _profiles(config, self._n_layers)
            for kind, profile in by_kind:
                if (known := self._kinds.get(kind)) is not None:
                    sizes[i, known] = profile
            for name, total, share in by_method:
                if (method := self._methods.get(name)) is not None:
                    sums[i, method, 0], shares[i, method] = total, share
        return sizes, sums, shares


@dataclass(frozen=True)
class _Setting:
    """A number as one column, or anything else as one column per value.

    Attributes:
        values: those that have a column each; empty for a number.
        low: smallest number, or its logarithm.
        high: largest number, or its logarithm.
        log: whether the logarithm counts, as where numbers span decades.
    """

    name: str
    values: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False

    @classmethod
    def of(cls, name: str, values: Sequence[Any]) -> _Setting:
        """The setting as some configurations have it."""
        numbers = [float(value) for value in values if is_finite(value)]
        if not numbers:
            return cls(name, tuple(sorted({repr(value) for value in values})))
        low, high = min(numbers), max(numbers)
        if low > 0 and high / low >= 8:
            return cls(name, (), math.log(low), math.log(high), True)
        return cls(name, (), low, high)

    def columns(self, rows: Sequence[Mapping[str, Any]]) -> Array:
        """Shape `(n, n_values or 1)`; what is no number stands in the middle of those."""
        options = [row.get(self.name) for row in rows]
        if self.values:
            return np.array([repr(v) == k for v in options for k in self.values], float).reshape(
                len(options), -1
            )
        return np.array([self._unit(value) for value in options])[:, None]

    def _unit(self, value: Any) -> float:
        if not is_finite(value) or self.high <= self.low or (self.log and value <= 0):
            return 0.5
        scaled = math.log(value) if self.log else float(value)
        return (scaled - self.low) / (self.high - self.low)


def features(configs: Sequence[PeftConfig], n_layers: int) -> Array:
    """Configurations as rows that are comparable among each other only, see `Encoder`."""
    return Encoder(configs, n_layers)(configs)


def kind_of(placement: Placement) -> Kind:
    """The method of a placement, and its options that are no numbers."""
    return placement.method, _words(placement.method, placement.options)


@lru_cache(N_REMEMBERED)
def _words(method: str, options: Settings) -> Settings:
    size = size_option(method)
    return tuple((k, v) for k, v in options if k != size and v is not None and not is_finite(v))


def _settings(configs: Sequence[PeftConfig]) -> Iterable[tuple[str, list[Any]]]:
    """Every setting that some configuration has, with its value in all of them."""
    rows = [_named(config) for config in configs]
    for name in sorted({name for row in rows for name in row}):
        yield name, [row.get(name) for row in rows]


@lru_cache(N_REMEMBERED)
def placed(config: PeftConfig) -> tuple[tuple[Kind, float, tuple[int, ...]], ...]:
    """Kind, size and layers of every placement."""
    return tuple((kind_of(p), size_of(p), p.layers) for p in config.placements)


@lru_cache(N_REMEMBERED)
def _profiles(
    config: PeftConfig, n_layers: int
) -> tuple[list[tuple[Kind, Array]], list[tuple[str, float, float]]]:
    """By kind the size on every layer, `(n_layers,)`; by method the sum and the share of layers."""
    by_kind: defaultdict[Kind, Array] = defaultdict(partial(np.zeros, n_layers))
    by_method: defaultdict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for kind, size, layers in placed(config):
        by_kind[kind][[layer for layer in layers if layer < n_layers]] += size
        by_method[kind[0]][0] += size * len(layers)
        by_method[kind[0]][1] += len(layers) / n_layers
    return list(by_kind.items()), [(name, sums[0], sums[1]) for name, sums in by_method.items()]


@lru_cache(N_REMEMBERED)
def _named(config: PeftConfig) -> Mapping[str, Any]:
    """The settings of a configuration, and its numeric options beside sizes, by name."""
    train, backbone = _TRAIN | dict(config.train), _BACKBONE | dict(config.backbone)
    settings = {f"train.{key}": value for key, value in train.items()}
    settings |= {f"backbone.{key}": value for key, value in backbone.items()}
    return {**settings, **_numbers_of(config, train[LEARNING_RATE])}


def _numbers_of(config: PeftConfig, rate: float) -> Mapping[str, float]:
    """The numeric options beside the size, averaged over the layers they hold on.

    A placement without a learning rate has that of the training, `rate`.
    """
    sums: dict[str, list[float]] = {}
    for placement in config.placements:
        size = size_option(placement.method)
        for key, value in {LEARNING_RATE: rate, **dict(placement.options)}.items():
            if key != size and is_finite(value):
                entry = sums.setdefault(f"{placement.method}.{key}", [0.0, 0.0])
                entry[0] += float(value) * len(placement.layers)
                entry[1] += len(placement.layers)
    return {name: total / layers for name, (total, layers) in sums.items() if layers}


def _scales(sizes: Array) -> Array:
    """The level of the largest size of every kind, `(1, n_kinds, 1)`, given `(n, n_kinds, …)`."""
    return 1.0 + np.log2(np.maximum(sizes.max(axis=(0, 2), initial=1.0), 1.0))[None, :, None]


def _levels(sizes: Array, scales: Array) -> Array:
    """Sizes to [0, 1]: 0 where absent, else linear in the logarithm."""
    levels = np.where(sizes > 0, 1.0 + np.log2(np.maximum(sizes, 1.0)), 0.0)
    return np.asarray(levels / scales)


def _hats(n_layers: int) -> Array:
    """Overlapping weights that read a profile at evenly spaced depths; `(n_layers, n_anchors)`."""
    n_anchors = min(ANCHORS, n_layers)
    if n_anchors <= 1:
        return np.full((n_layers, 1), 1.0 / n_layers)
    position = np.linspace(0.0, n_anchors - 1.0, n_layers)
    weights = np.maximum(1.0 - np.abs(position[:, None] - np.arange(n_anchors)), 0.0)
    return np.asarray(weights / weights.sum(axis=0))
