"""What the retrainings say of the picks, against LoRA that was tuned with the same budget."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
from scipy.stats import t

from benchmarks.rows import Row
from benchmarks.value.picks import PICKS
from benchmarks.value.runs import FRESH, REFERENCE, SINGLE, picks_by_arm, training

POINTS = 100
"""Points of accuracy in a whole."""

Pair = tuple[str, int]
"""A data set and a repetition."""


@dataclass(frozen=True)
class Gain:
    """One pick of an arm on one data set in one repetition, by means over the fresh seeds.

    Attributes:
        over_lora: points of test accuracy more than the best pick of tuned LoRA.
        over_single: points more than the best pick of that arm of one method whose validation
            accuracy is highest.
        params_ratio: parameters, one at least, over those of the best pick of tuned LoRA.
    """

    data: str
    arm: str
    pick: str
    over_lora: float
    over_single: float
    params_ratio: float


def gains(searches: Sequence[Row], retrainings: Sequence[Row], seeds: int) -> list[Gain]:
    """Of every pick whose retrainings are all there, and those of what it is compared with."""
    tests = {
        (_pair(r), (r["config"], r["epochs"]), r["seed"]): r["test_accuracy"] for r in retrainings
    }
    all_gains: list[Gain] = []
    for pair, rows in groupby(sorted(searches, key=_pair), _pair):
        of_pair = list(rows)
        if REFERENCE in [row["arm"] for row in of_pair]:
            all_gains += _gains_of(pair, picks_by_arm(of_pair), tests, seeds)
    return all_gains


def _pair(row: Row) -> Pair:
    return row["data"], row["repetition"]


def _gains_of(
    pair: Pair, picks: Mapping[str, Mapping[str, Row]], tests: Mapping[Any, float], seeds: int
) -> Iterator[Gain]:
    def mean(trial: Row) -> float | None:
        keys = [(pair, training(trial), FRESH + n) for n in range(seeds)]
        return float(np.mean([tests[k] for k in keys])) if tests.keys() >= set(keys) else None

    lora = picks[REFERENCE]["best"]
    singles = [picks[arm]["best"] for arm in SINGLE if arm in picks]
    single = max(singles, key=lambda trial: trial["accuracy"])
    for arm, by_name in picks.items():
        for name, trial in by_name.items():
            value, of_lora, of_single = mean(trial), mean(lora), mean(single)
            if value is not None and of_lora is not None and of_single is not None:
                yield Gain(
                    data=pair[0],
                    arm=arm,
                    pick=name,
                    over_lora=POINTS * (value - of_lora),
                    over_single=POINTS * (value - of_single),
                    params_ratio=max(1, trial["params"]) / lora["params"],
                )


def by_arm(gains: Iterable[Gain], arms: Iterable[str]) -> dict[str, dict[str, Any]]:
    """The figures of each pick of each arm that has any."""
    chosen = list(gains)
    tables = {
        arm: {
            pick: figures([g for g in chosen if (g.arm, g.pick) == (arm, pick)])
            for pick in PICKS
            if any((g.arm, g.pick) == (arm, pick) for g in chosen)
        }
        for arm in arms
    }
    return {arm: table for arm, table in tables.items() if table}


def figures(gains: Sequence[Gain]) -> dict[str, Any]:
    """Means over data sets and repetitions; `interval` is that of `gain_over_tuned_lora`."""
    over_lora = [gain.over_lora for gain in gains]
    ratios = [gain.params_ratio for gain in gains]
    return {
        "gain_over_tuned_lora": round(float(np.mean(over_lora)), 3),
        "gain_over_best_single": round(float(np.mean([g.over_single for g in gains])), 3),
        "interval": interval(over_lora),
        "params_ratio": round(float(np.exp(np.mean(np.log(ratios)))), 4),
        "pairs": len(gains),
    }


def interval(differences: Sequence[float]) -> list[float] | None:
    """95 per cent of the mean of paired differences, by Student's t; None of a single one."""
    n = len(differences)
    if n < 2:
        return None
    middle = float(np.mean(differences))
    half = float(t.ppf(0.975, n - 1) * np.std(differences, ddof=1) / np.sqrt(n))
    return [round(middle - half, 3), round(middle + half, 3)]
