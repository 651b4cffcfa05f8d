"""Whether the search beats each of the fixed configurations it began with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from autopeft.objective.objective import Objective
from autopeft.report.front import known, learned
from autopeft.study.trial import TrialRecord


@dataclass(frozen=True)
class Comparison:
    """A baseline beside the trials that the search proposed.

    Attributes:
        baseline: a complete trial with a name.
        rival: the best by quality among the proposed trials that cost no more, or None.
        gain: how much better the rival is, in the unit of the objective; negative for worse; None
            without a rival.
        cheaper: the smallest cost of a proposed trial of at least the baseline's quality, or None.
    """

    baseline: TrialRecord
    rival: TrialRecord | None
    gain: float | None
    cheaper: TrialRecord | None


def compare(
    records: Sequence[TrialRecord], objectives: Sequence[Objective]
) -> tuple[Comparison, ...]:
    """Every complete baseline against the search, in the order of the study.

    Quality is the first learned objective, cost the first known one.

    Raises:
        StudyError: the objectives lack one of the two.
    """
    quality, cost = learned(objectives), known(objectives)
    complete = [record for record in records if record.state == "complete"]
    searched = [record for record in complete if record.baseline is None]
    return tuple(_beside(b, searched, quality, cost) for b in complete if b.baseline is not None)


def _beside(
    baseline: TrialRecord, searched: Sequence[TrialRecord], quality: Objective, cost: Objective
) -> Comparison:
    def worse(record: TrialRecord) -> tuple[float, float]:
        return quality.loss(record.values[quality.name]), cost.loss(record.values[cost.name])

    loss, price = worse(baseline)
    rival = min((r for r in searched if worse(r)[1] <= price), key=worse, default=None)
    equals = [record for record in searched if worse(record)[0] <= loss]
    cheaper = min(equals, key=lambda record: worse(record)[::-1], default=None)
    gain = None
    if rival is not None:
        sign = 1.0 if quality.goal == "maximize" else -1.0
        gain = sign * (rival.values[quality.name] - baseline.values[quality.name])
    return Comparison(baseline, rival, gain, cheaper)
