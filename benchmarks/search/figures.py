"""What the runs of a sampler on a problem come to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from autopeft.objective.array import Array

SHARES = (90, 95, 99)
"""Percentages of the greatest hypervolume."""

COUNTS = (25, 50, 100, 200)
"""Trials after which the hypervolume is told."""

N_RESAMPLES = 10_000

Run = Mapping[str, Any]


def figures(runs: Sequence[Run]) -> dict[str, Any]:
    """Of the runs of one sampler on one problem, one for each seed.

    `trials_to_<share>`: of what has not been reached it is one more than the trials of the run.
    Intervals hold 95 per cent of the bootstrapped medians or means. `seconds` is the median of the
    runs.
    """
    volumes = np.array([run["volumes"] for run in runs])
    summary: dict[str, Any] = {"seeds": len(runs), "trials": volumes.shape[1]}
    for share in SHARES:
        counts = trials_to(volumes, share / 100)
        reached = float((counts <= volumes.shape[1]).mean())
        summary[f"trials_to_{share}"] = {
            "median": float(np.median(counts)),
            "interval": interval(counts, np.median),
            "reached": reached,
        }
    for count in COUNTS:
        if count <= volumes.shape[1]:
            column = volumes[:, count - 1]
            summary[f"hypervolume_at_{count}"] = {
                "mean": round(float(column.mean()), 5),
                "interval": interval(column, np.mean),
            }
    seconds = [run["seconds"] for run in runs if run["seconds"] is not None]
    return {**summary, "seconds": float(np.median(seconds)) if seconds else None}


def trials_to(volumes: Array, share: float) -> Array:
    """The trials after which a share of the greatest hypervolume is reached, of every run.

    Args:
        volumes: shape `(runs, trials)`.
        share: in [0, 1].

    Returns:
        Shape `(runs,)`.
    """
    reached = volumes >= share
    first = reached.argmax(axis=1) + 1.0
    return np.asarray(np.where(reached.any(axis=1), first, volumes.shape[1] + 1.0))


def interval(values: Array, statistic: Callable[..., Any]) -> list[float]:
    """95 per cent of a statistic of `(n,)` values drawn again with replacement."""
    rng = np.random.default_rng(0)
    drawn = rng.choice(values, (N_RESAMPLES, len(values)))
    low, high = np.percentile(statistic(drawn, axis=1), [2.5, 97.5])
    return [round(float(low), 5), round(float(high), 5)]
