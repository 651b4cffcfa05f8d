"""Trials that were run again with other seeds, as means with intervals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from math import sqrt
from statistics import fmean, stdev

from scipy.stats import t as student

from autopeft.study.trial import TrialRecord

CONFIDENCE = 0.95


def folded(records: Iterable[TrialRecord]) -> list[TrialRecord]:
    """The records with complete repeats taken into the trial that they repeat.

    Its values are then the means over the seeds, its margins half the widths of their intervals
    (Student's t, for independent seeds). A record without complete repeats is as it was.
    """
    given = list(records)
    repeats: dict[int, list[TrialRecord]] = {}
    for record in given:
        if record.repeat_of is not None and record.state == "complete":
            repeats.setdefault(record.repeat_of, []).append(record)
    taken = {record.number for of_trial in repeats.values() for record in of_trial}
    unfolded = [record for record in given if record.number not in taken]
    return [_mean(record, repeats.get(record.number, ())) for record in unfolded]


def _mean(record: TrialRecord, repeats: Iterable[TrialRecord]) -> TrialRecord:
    every = [record.values, *(repeat.values for repeat in repeats)]
    if len(every) == 1 or record.state != "complete":
        return record
    values = {name: fmean(each[name] for each in every) for name in record.values}
    return replace(record, values=values, n_seeds=len(every), margins=_margins(every))


def _margins(every: list[Mapping[str, float]]) -> dict[str, float]:
    """By objective; known ones, which have the same value each time, have none."""
    n = len(every)
    factor = float(student.ppf((1 + CONFIDENCE) / 2, n - 1)) / sqrt(n)
    spreads = {name: stdev(each[name] for each in every) for name in every[0]}
    return {name: factor * spread for name, spread in spreads.items() if spread}
