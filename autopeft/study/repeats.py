"""Which trials are run again with other seeds, once a study has come to its end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from autopeft.objective import pareto
from autopeft.objective.objective import Objective
from autopeft.study.trial import TrialRecord


def repeats(
    trials: Iterable[TrialRecord], objectives: Sequence[Objective], most: int, seeds: Iterable[int]
) -> Iterator[tuple[TrialRecord, dict[str, Any]]]:
    """The trials of the front, each with the attributes of its repeats.

    Args:
        trials: of the study.
        objectives: of the study.
        most: how many trials; the ends of the front first, then those that stand furthest from the
            others.
        seeds: of the repeats.
    """
    again = list(seeds)
    for trial in _finalists(trials, objectives, most):
        for seed in again:
            name = f"{trial.number}:{seed}"
            yield trial, {"repeat": name, "repeat_of": trial.number, "seed": seed}


def _finalists(
    trials: Iterable[TrialRecord], objectives: Sequence[Objective], most: int
) -> list[TrialRecord]:
    """Complete trials of the front, the least crowded first."""
    complete = [t for t in trials if t.state == "complete" and t.repeat_of is None]
    rows = [[o.loss(t.values[o.name]) for o in objectives] for t in complete]
    best = np.flatnonzero(pareto.front(rows))
    lonely = np.argsort(-pareto.crowding([rows[i] for i in best]), kind="stable")
    return [complete[i] for i in best[lonely[:most]]]
