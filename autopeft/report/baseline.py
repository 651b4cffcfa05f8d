"""Whether the search beats the fixed configurations it began with, on the test split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import fmean, variance
from typing import Any

from autopeft.objective.objective import Objective
from autopeft.report.seeds import folded, half_width
from autopeft.report.value import shown
from autopeft.study.repeats import POINT, fresh
from autopeft.study.trial import TrialRecord

POINTS = 100
"""Points of a share in one."""


@dataclass(frozen=True)
class Comparison:
    """A baseline beside one trial that the search proposed, by fresh trainings of both.

    Attributes:
        baseline: with a name; its values are means over its fresh trainings.
        rival: the trial, likewise; None where none was trained again.
        gain: of the rival on the test split, in `unit`; negative for worse.
        margin: half the width of the 95 % interval of the gain; None where one of the two has a
            single fresh training.
        unit: points of a share, or the metric of which the gain is.
        n_seeds: fresh trainings, of whichever of the two has fewer.
        cost: how much of the first known objective the rival takes, in words.
        is_cheaper: whether that is less.
    """

    baseline: TrialRecord
    rival: TrialRecord | None = None
    gain: float = 0.0
    margin: float | None = None
    unit: str = "points"
    n_seeds: int = 0
    cost: str = ""
    is_cheaper: bool = False

    @property
    def verdict(self) -> int:
        """1 where the rival is better by more than the noise, -1 where it is worse, else 0."""
        if self.margin is None or abs(self.gain) <= self.margin:
            return 0
        return 1 if self.gain > 0 else -1

    @property
    def sentence(self) -> str:
        """What came of it, for people."""
        name = self.baseline.baseline
        if self.rival is None:
            return f"no mix was among the finalists, to be compared with {name}"
        trial = f"trial {self.rival.number}"
        if self.margin is None:
            return f"{trial} and {name} cannot be told apart by a single fresh training"
        gain = self._told(self.margin)
        seeds = f"{self.n_seeds} seeds"
        if self.verdict > 0:
            return f"{trial} beats {name} by {gain}{self.cost} ({seeds})"
        if self.verdict < 0:
            return f"{name} is better: {trial} is behind it by {gain}{self.cost} ({seeds})"
        noise = f"{'-' if self.gain < 0 else '+'}{gain}"
        if self.is_cheaper:
            return f"{trial} is as good as {name} ({noise}, {seeds}){self.cost}"
        none = f"{name} is as good: no mix was better than it by more than the noise"
        return f"{none} ({trial}: {noise}{self.cost}, {seeds})"

    def _told(self, margin: float) -> str:
        """How large the gain is, in words."""
        if self.unit == "points":
            return f"{abs(self.gain):.1f} ± {margin:.1f} points"
        return f"{abs(self.gain):.2g} ± {margin:.2g} of {self.unit}"

    def to_dict(self) -> dict[str, Any]:
        """The comparison as plain values for JSON."""
        return {
            "baseline": self.baseline.baseline,
            "trial": None if self.rival is None else self.rival.number,
            "gain": None if self.rival is None else self.gain,
            "margin": self.margin,
            "unit": self.unit,
            "seeds": self.n_seeds,
            "sentence": self.sentence,
        }


def compare(
    records: Sequence[TrialRecord], objectives: Sequence[Objective], rival: int | None = None
) -> tuple[Comparison, ...]:
    """Every baseline that was trained again, in the order of the study.

    Args:
        records: every trial of the study.
        objectives: the first learned one is compared; none are compared without one.
        rival: number of the trial that all are compared with; by default see `_rival`.
    """
    quality = next((o for o in objectives if not o.known), None)
    if quality is None:
        return ()
    cost = next((o for o in objectives if o.known), None)
    scores = _scores(fresh(records), quality.name)
    scored = [record for record in folded(records) if scores.get(record.number)]
    rivals = [r for r in scored if (r.baseline is None if rival is None else r.number == rival)]
    return tuple(
        _beside(b, _rival(b, rivals, quality, cost), scores, quality, cost)
        for b in scored
        if b.baseline is not None and b.number != rival
    )


def _scores(again: Mapping[int, Sequence[TrialRecord]], name: str) -> Mapping[int, Sequence[float]]:
    """The test values of every trial; of what trains nothing the same as often as of others."""
    scores = {
        number: [r.test[name] for r in repeats if name in r.test]
        for number, repeats in again.items()
    }
    most = max(map(len, scores.values()), default=0)
    for number, repeats in again.items():
        if any(repeat.trains_nothing for repeat in repeats):
            scores[number] = scores[number][:1] * most
    return scores


def _rival(
    baseline: TrialRecord,
    rivals: Sequence[TrialRecord],
    quality: Objective,
    cost: Objective | None,
) -> TrialRecord | None:
    """The best that costs no more and is no more than a point behind; else the best of all.

    By the validation split: the test split has no say in it.
    """

    def loss(record: TrialRecord) -> float:
        return quality.loss(record.values[quality.name])

    ranked = sorted(rivals, key=lambda rival: (loss(rival), _price(rival, cost)))
    near = [rival for rival in ranked if loss(rival) <= loss(baseline) + (quality.within or POINT)]
    most = _price(baseline, cost)
    affordable = (rival for rival in near if _price(rival, cost) <= most)
    return next(affordable, ranked[0] if ranked else None)


def _price(record: TrialRecord, cost: Objective | None) -> float:
    """Its known objective as a loss; 0 where the study has none."""
    return cost.loss(record.values[cost.name]) if cost else 0.0


def _beside(
    baseline: TrialRecord,
    rival: TrialRecord | None,
    scores: Mapping[int, Sequence[float]],
    quality: Objective,
    cost: Objective | None,
) -> Comparison:
    if rival is None:
        return Comparison(baseline)
    ours, theirs = scores[rival.number], scores[baseline.number]
    is_share = quality.goal == "maximize" and all(0 <= s <= 1 for s in (*ours, *theirs))
    unit = POINTS if is_share else 1
    margin = welch(ours, theirs)
    return Comparison(
        baseline,
        rival,
        gain=unit * (quality.loss(fmean(theirs)) - quality.loss(fmean(ours))),
        margin=None if margin is None else unit * margin,
        unit="points" if is_share else quality.name.replace("_", " "),
        n_seeds=min(len(ours), len(theirs)),
        cost=_cost(rival, baseline, cost) if cost else "",
        is_cheaper=bool(cost) and _price(rival, cost) < _price(baseline, cost),
    )


def welch(ours: Sequence[float], theirs: Sequence[float]) -> float | None:
    """Half the width of the 95 % interval of the difference of two means, as Welch takes it.

    None where a sample has a single value.
    """
    if min(len(ours), len(theirs)) < 2:
        return None
    parts = [variance(sample) / len(sample) for sample in (ours, theirs)]
    total = sum(parts)
    if not total:
        return 0.0
    squares = zip(parts, (ours, theirs), strict=True)
    degrees = total**2 / sum(part**2 / (len(sample) - 1) for part, sample in squares)
    return half_width(degrees) * sqrt(total)


def _cost(rival: TrialRecord, baseline: TrialRecord, cost: Objective) -> str:
    """Such as ` with 0.6 times its parameters`."""
    plain = cost.name.removeprefix("trainable_").replace("params", "parameters").replace("_", " ")
    ours, theirs = rival.values[cost.name], baseline.values[cost.name]
    if not theirs:
        return f" with {shown(cost, ours)} {plain} against none"
    ratio = ours / theirs
    times = f"{ratio:.1f}" if ratio >= 0.1 else f"{ratio:.2g}"
    return f" with {times} times its {plain}"
