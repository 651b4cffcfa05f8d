"""What a simulated trial reports and how long it takes, from recorded learning curves."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from autopeft.core.config import PeftConfig
from autopeft.core.report import Report
from autopeft.core.size import size_of
from autopeft.objective.array import Array
from benchmarks.scale.record import METRICS, RUNGS

METHODS = ("lora", "adapter", "prefix", "bitfit")
N_LAYERS = 6
EPOCH = 60.0
"""Seconds of an epoch that trains all layers, before noise."""

JITTER = 0.1
"""Standard deviation of the logarithm of a duration."""

BYTES_OF_A_PARAMETER = 16
"""Value, gradient and two moments in float32."""


@dataclass(frozen=True)
class Recorded:
    """One recorded configuration: `curve` has shape `(rungs, 1 + metrics)`, steps first."""

    config: PeftConfig
    trainable_params: int
    peak_memory: int
    curve: Array


class Replay:
    """Answers for any configuration with the recorded one nearest to it, and noise.

    The noise of a trial depends on the seed and the configuration only. Its size is what the
    recorded curves show between seeds: per metric and rung, the standard deviation within
    configurations that were trained several times.

    Args:
        path: of what `benchmarks.scale.record` writes.
        seed: of the noise.
    """

    def __init__(self, path: Path, seed: int) -> None:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["setting"]["rungs"] != list(RUNGS):
            raise ValueError(f"{path} holds curves with the rungs {document['setting']['rungs']}")
        self._seed = seed
        self._rows = [_recorded(row) for row in document["rows"] if row["seed"] == 0]
        self._points = np.stack([profile(row.config) for row in self._rows])
        self.noise = _spread(document["rows"])

    @property
    def n_recorded(self) -> int:
        """How many configurations were recorded."""
        return len(self._rows)

    def nearest(self, config: PeftConfig) -> Recorded:
        """The recorded configuration with the nearest profile."""
        return self._rows[int(((self._points - profile(config)) ** 2).sum(axis=1).argmin())]

    def reports(self, config: PeftConfig, member: int) -> list[Report]:
        """The report of every rung."""
        curve = self.nearest(config).curve.copy()
        curve[:, 1:] += self._random(config, 0).normal(size=self.noise.shape) * self.noise
        curve[:, 1] = np.clip(curve[:, 1], 0.0, 1.0)
        return [
            Report(int(step), rung, dict(zip(METRICS, map(float, values), strict=True)), member)
            for rung, (step, *values) in zip(RUNGS, curve, strict=True)
        ]

    def durations(self, config: PeftConfig) -> list[float]:
        """Seconds from the start, or the rung before, to every rung.

        A layer counts once for its forward pass, and twice more for its backward pass unless it
        lies below all placements; a twentieth is added for each placement on all layers.
        """
        lowest = min(config.layers, default=N_LAYERS)
        passes = N_LAYERS + 2 * (N_LAYERS - lowest)
        extra = 1.0 + 0.05 * sum(len(p.layers) for p in config.placements) / N_LAYERS
        epoch = EPOCH * passes / (3 * N_LAYERS) * extra
        noise = JITTER * self._random(config, 1).normal(size=len(RUNGS))
        return [float(seconds) for seconds in epoch * np.diff((0.0, *RUNGS)) * np.exp(noise)]

    def peak_memory(self, config: PeftConfig, trainable_params: int) -> float:
        """Bytes: those of the nearest configuration, corrected for the number of parameters."""
        near = self.nearest(config)
        return near.peak_memory + BYTES_OF_A_PARAMETER * (trainable_params - near.trainable_params)

    def _random(self, config: PeftConfig, stream: int) -> np.random.Generator:
        return np.random.default_rng([self._seed, stream, int(config.key, 16)])


def profile(config: PeftConfig) -> Array:
    """Log size per method and layer, and the log learning rate; shape `(methods * layers + 1,)`."""
    levels = np.zeros((len(METHODS), N_LAYERS))
    for placement in config.placements:
        level = math.log2(1 + size_of(placement)) / 7
        levels[METHODS.index(placement.method), list(placement.layers)] += level
    rate = math.log10(dict(config.train).get("learning_rate", 2e-3))
    return np.append(levels.ravel() / math.sqrt(N_LAYERS), rate)


def _recorded(row: dict[str, Any]) -> Recorded:
    curve = np.array(row["curve"], dtype=np.float64)[:, 1:]
    config = PeftConfig.from_dict(row["config"])
    return Recorded(config, row["trainable_params"], row["peak_memory"], curve)


def _spread(rows: list[dict[str, Any]]) -> Array:
    """Standard deviation between seeds, shape `(rungs, metrics)`; 0 where none were repeated."""
    groups: dict[int, list[Array]] = defaultdict(list)
    for row in rows:
        groups[row["index"]].append(np.array(row["curve"], dtype=np.float64)[:, 2:])
    repeated = [np.stack(group) for group in groups.values() if len(group) > 1]
    if not repeated:
        return np.zeros((len(RUNGS), len(METRICS)))
    return np.asarray(np.sqrt(np.mean([group.var(axis=0, ddof=1) for group in repeated], axis=0)))
