"""Which trials are trained again with fresh seeds, once a study has come to its end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import count, islice
from statistics import fmean
from typing import Any

import numpy as np

from autopeft.objective import pareto
from autopeft.objective.objective import Objective
from autopeft.search.expected import expected_losses
from autopeft.study.trial import TrialRecord

Repeat = tuple[TrialRecord, dict[str, Any]]
"""A trial, and what is recorded of its training with a fresh seed."""

UNDER_WAY = ("waiting", "running", "paused", "interrupted")

POINT = 0.01
"""How far behind the best a trial is close to it, in the unit of the objective, unless told."""


def repeats(
    trials: Sequence[TrialRecord],
    objectives: Sequence[Objective],
    most: int,
    seeds: Sequence[int],
    lengths: Sequence[float],
    is_queued: Callable[[str], bool] = lambda _: True,
) -> Iterator[Repeat]:
    """Finalists and baselines with the attributes of each repeat, one seed after the other.

    What trains nothing is the same with every seed: it has the first one alone.

    Of two lengths the best finalist is trained with both first. Once that has ended, all others
    get the one with which it is better on the validation split, for too long a training spoils what
    another needs.

    Args:
        trials: of the study.
        objectives: of the study.
        most: how many finalists; with none, baselines are not repeated either.
        seeds: of the repeats.
        lengths: in epochs, ascending.
        is_queued: whether a repeat of this name was ever queued.
    """
    finalists = _finalists(trials, objectives, most)
    baselines = [t for t in trials if t.baseline is not None and t.state == "complete"]
    again = list({t.number: t for t in [*finalists, *baselines]}.values()) if most else []
    if len(again) < 2 or not finalists or len(lengths) == 1:
        yield from _each(again, seeds, lengths[-1])
        return
    first, *others = again
    of_both = [repeat for length in lengths for repeat in _each([first], seeds, length)]
    yield from of_both
    if not all(is_queued(attrs["repeat"]) for _, attrs in of_both):
        return
    own = [trial for trial in trials if trial.repeat_of == first.number]
    if own and not any(trial.state in UNDER_WAY for trial in own):
        yield from _each(others, seeds, _better(own, objectives, lengths))


def rerun(
    trials: Sequence[TrialRecord],
    number: int,
    most: int,
    seed: int,
    is_queued: Callable[[str], bool],
) -> list[Repeat]:
    """A trial with the attributes of each repeat that it lacks.

    It is trained as far as others were, or as it was; with seeds that it has not been trained with.

    Args:
        trials: of the study.
        number: of the trial.
        most: repeats of it in all.
        seed: after which those of the repeats come.
        is_queued: whether a repeat of this name was ever queued.
    """
    trial, repeated = trials[number], fresh(trials)
    length = next(iter(repeated.values()))[0].epochs if repeated else trial.epochs
    n_missing = (1 if trial.trains_nothing else most) - len(repeated.get(number, ()))
    each = (next(_each([trial], [other], length)) for other in count(seed + 1))
    unused = (repeat for repeat in each if not is_queued(repeat[1]["repeat"]))
    return list(islice(unused, max(0, n_missing)))


def fresh(records: Iterable[TrialRecord]) -> dict[int, list[TrialRecord]]:
    """The complete repeats by the number of the trial that they repeat.

    Where some were trained farther than others, those of the length that most trials were repeated
    with, the latest of equal ones.
    """
    by_length: dict[float, dict[int, list[TrialRecord]]] = {}
    for record in records:
        if record.repeat_of is not None and record.state == "complete":
            of_length = by_length.pop(record.epochs, {})
            of_length.setdefault(record.repeat_of, []).append(record)
            by_length[record.epochs] = of_length  # the latest is the last
    return max(reversed(by_length.values()), key=len, default={})


def _each(trials: Sequence[TrialRecord], seeds: Iterable[int], epochs: float) -> Iterator[Repeat]:
    """The repeats of trials; only those of another length than their trial have it in the name."""
    for place, seed in enumerate(seeds):
        for trial in (t for t in trials if not (place and t.trains_nothing)):
            length = "" if epochs == trial.epochs else f":{epochs:g}"
            name = f"{trial.number}:{seed}{length}"
            attrs = {"repeat": name, "repeat_of": trial.number, "seed": seed, "epochs": epochs}
            yield trial, attrs


def _better(
    own: Sequence[TrialRecord], objectives: Sequence[Objective], lengths: Sequence[float]
) -> float:
    """The length whose repeats have the better mean; the longest where nothing can be compared."""
    quality = next((o for o in objectives if not o.known), objectives[0])
    complete = [trial for trial in own if trial.state == "complete"]
    losses = {
        length: [quality.loss(t.values[quality.name]) for t in complete if t.epochs == length]
        for length in lengths
    }
    means = {length: fmean(of_length) for length, of_length in losses.items() if of_length}
    return min(means, key=lambda length: means[length], default=lengths[-1])


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
