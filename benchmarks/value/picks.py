"""What is recommended of the trials of an arm, by validation only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.rows import Row

PICKS = ("best", "within_params", "cheapest")

TOLERANCE = 0.01
"""Validation accuracy that the cheapest pick may lack of the best."""


def picks(trials: Sequence[Row], most: float) -> Mapping[str, Row]:
    """The picks of an arm; of equals the one with fewer parameters.

    Args:
        trials: of the arm.
        most: parameters of `within_params`, which is the cheapest trial where all have more.

    Raises:
        ValueError: no trial was trained to the end.
    """
    ended = [trial for trial in trials if trial["accuracy"] is not None]
    best = min(ended, key=_rank)
    cheap = [t for t in ended if t["params"] <= most] or [min(ended, key=_cost)]
    near = [t for t in ended if t["accuracy"] >= best["accuracy"] - TOLERANCE - 1e-9]
    chosen = (best, min(cheap, key=_rank), min(near, key=_cost))
    return dict(zip(PICKS, chosen, strict=True))


def _rank(trial: Row) -> tuple[float, float]:
    return -trial["accuracy"], trial["params"]


def _cost(trial: Row) -> tuple[float, float]:
    return trial["params"], -trial["accuracy"]
