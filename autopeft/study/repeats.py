"""Which trials are trained again with fresh seeds, once a study has come to its end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from autopeft.objective import pareto
from autopeft.objective.objective import Objective
from autopeft.search.expected import expected_losses
from autopeft.study.trial import TrialRecord

POINT = 0.01
"""How far behind the best a trial is close to it, in the unit of the objective, unless told."""


def repeats(
    trials: Sequence[TrialRecord],
    objectives: Sequence[Objective],
    most: int,
    seeds: Iterable[int],
    epochs: float,
) -> Iterator[tuple[TrialRecord, dict[str, Any]]]:
    """Finalists and baselines with the attributes of each repeat, one seed after the other.

    Args:
        trials: of the study.
        objectives: of the study.
        most: how many finalists; with none, baselines are not repeated either.
        seeds: of the repeats.
        epochs: of each repeat; those of another length are other repeats.
    """
    finalists = _finalists(trials, objectives, most)
    baselines = [t for t in trials if t.baseline is not None and t.state == "complete"]
    again = {trial.number: trial for trial in [*finalists, *baselines]} if most else {}
    for seed in seeds:
        for trial in again.values():
            name = f"{trial.number}:{seed}:{epochs:g}"
            attrs = {"repeat": name, "repeat_of": trial.number, "seed": seed, "epochs": epochs}
            yield trial, attrs


def _finalists(
    trials: Sequence[TrialRecord], objectives: Sequence[Objective], most: int
) -> list[TrialRecord]:
    """Complete trials on the front of expected losses.

    First comes the best by the first measured objective, then the last of those within a point of
    it, which costs least, within two points, within four and so on, then the others from the best
    on. All trials tell what to expect; baselines, which are repeated anyway, take no place.
    """
    complete = [t for t in trials if t.state == "complete" and t.repeat_of is None]
    losses = [o.loss(t.values[o.name]) for t in complete for o in objectives]
    rows = np.array(losses).reshape(-1, len(objectives))
    expected = expected_losses([t.config for t in complete], rows, objectives)
    quality = next((i for i, o in enumerate(objectives) if not o.known), 0)
    proposed = np.array([i for i, t in enumerate(complete) if t.baseline is None], dtype=int)
    front = proposed[pareto.front(expected[proposed])]
    ranked = front[np.argsort(expected[front, quality], kind="stable")]
    behind = expected[ranked, quality] - expected[ranked[:1], quality]
    cheapest = [ranked[behind <= POINT * 2**n][-1:] for n in range(most)]
    chosen = np.concatenate([ranked[:1], *cheapest, ranked])
    return [complete[i] for i in dict.fromkeys(chosen.tolist())][:most]
