"""Trials that were trained again with fresh seeds, as means with intervals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from math import sqrt
from statistics import fmean, stdev

from autopeft.study.repeats import fresh
from autopeft.study.trial import TrialRecord

CONFIDENCE = 0.95


def folded(records: Iterable[TrialRecord]) -> list[TrialRecord]:
    """The records with complete repeats taken into the trial that they repeat.

    Its values are then the means over the repeats, without those of the training that selected it;
    its margins half the widths of their intervals (Student's t, for independent seeds). A record
    without complete repeats is as it was.
    """
    given = list(records)
    repeats = fresh(given)
    unfolded = [r for r in given if r.repeat_of is None or r.state != "complete"]
    return [_mean(record, repeats.get(record.number, ())) for record in unfolded]


def contenders(records: Iterable[TrialRecord]) -> list[TrialRecord]:
    """The complete trials that results are told of: those with repeats, all where none has any."""
    complete = [record for record in folded(records) if record.state == "complete"]
    return [record for record in complete if record.n_seeds] or complete


def half_width(degrees: float) -> float:
    """Half the width of an interval of a mean, in standard errors."""
    from scipy.special import stdtrit  # takes longer than all else here

    return float(stdtrit(degrees, (1 + CONFIDENCE) / 2))


def _mean(record: TrialRecord, repeats: Sequence[TrialRecord]) -> TrialRecord:
    if not repeats or record.state != "complete":
        return record
    values = [repeat.values for repeat in repeats]
    tests = [repeat.test for repeat in repeats if repeat.test]
    return replace(
        record,
        values=_means(values),
        margins=_margins(values),
        test=_means(tests),
        test_margins=_margins(tests),
        n_seeds=len(repeats),
    )


def _means(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: fmean(row[name] for row in rows) for name in (rows[0] if rows else ())}


def _margins(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """By name; what has the same value each time, and what has one value only, has none."""
    n = len(rows)
    if n < 2:
        return {}
    spreads = {name: stdev(row[name] for row in rows) for name in rows[0]}
    factor = half_width(n - 1) / sqrt(n)
    return {name: factor * spread for name, spread in spreads.items() if spread}
