"""What is recommended of the trials of an arm, by validation only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.rows import Row

PICKS = ("best", "within_params", "cheapest")

TOLERANCE = 0.01
"""Validation accuracy that the cheapest pick may lack of the best."""


def picks(trials: Sequence[Row], most: float) -> Mapping[str, Row]:
    """The picks of an arm; of equals the one with fewer parameters.

    Where it trained some again, they are among those, since others are as good by luck.

    Args:
        trials: of the arm.
        most: parameters of `within_params`, which has been trained once only if all that were
            trained again have more, and is the cheapest trial if all trials have more.

    Raises:
        ValueError: no trial was trained to the end.
    """
    ended = [trial for trial in trials if trial["accuracy"] is not None]
    again = [trial for trial in ended if trial["trainings"] > 1] or ended
    best = min(again, key=_rank)
    within = [[t for t in each if t["params"] <= most] for each in (again, ended)]
    cheap = within[0] or within[1] or [min(ended, key=_cost)]
    near = [t for t in again if t["accuracy"] >= best["accuracy"] - TOLERANCE - 1e-9]
    chosen = (best, min(cheap, key=_rank), min(near, key=_cost))
    return dict(zip(PICKS, chosen, strict=True))


def _rank(trial: Row) -> tuple[float, float]:
    return -trial["accuracy"], trial["params"]


def _cost(trial: Row) -> tuple[float, float]:
    return trial["params"], -trial["accuracy"]
