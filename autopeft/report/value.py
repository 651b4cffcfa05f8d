"""Values of objectives as people read them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from autopeft.core.quantity import prefixed
from autopeft.objective.objective import Objective
from autopeft.study.trial import TrialRecord


def shown(objective: Objective, value: float | None) -> str:
    """The value in full: `62,224`, `1.61 GB`, `0.8420`, `–` for none."""
    if value is None or not math.isfinite(value):
        return "–"
    if objective.unit in {"bytes", "operations"}:
        return short(objective, value)
    if float(value).is_integer() and abs(value) >= 2:
        return f"{int(value):,}"
    if objective.known:
        return f"{value:,.4g}"
    return f"{value:.4f}" if abs(value) < 100 else f"{value:,.1f}"


def valued(objective: Objective, record: TrialRecord) -> str:
    """The value of a trial, with its margin where it is a mean: `0.7870 ± 0.0120`."""
    return _with_margin(objective, record.values, record.margins)


def tested(objective: Objective, record: TrialRecord) -> str:
    """The same on the test split, `–` where it was not scored."""
    return _with_margin(objective, record.test, record.test_margins)


def scored(objectives: Iterable[Objective], records: Iterable[TrialRecord]) -> list[Objective]:
    """The objectives of which some trial has a value on the test split."""
    names = {name for record in records for name in record.test}
    return [objective for objective in objectives if objective.name in names]


def _with_margin(
    objective: Objective, values: Mapping[str, float], margins: Mapping[str, float]
) -> str:
    text = shown(objective, values.get(objective.name))
    return f"{text} ± {margins[objective.name]:.2g}" if objective.name in margins else text


def short(objective: Objective, value: float) -> str:
    """At most three digits with a decimal prefix, as on an axis: `400k`, `1.61 GB`."""
    number, prefix = prefixed(value, 3)
    return f"{number} {prefix}B" if objective.unit == "bytes" else f"{number}{prefix}"


def title(objective: Objective) -> str:
    """The name with the direction in which it improves: `accuracy ↑`, `latency (ms) ↓`."""
    plain = objective.unit in {"", "parameters", "bytes"}
    arrow = "↑" if objective.goal == "maximize" else "↓"
    unit = "" if plain else f" ({objective.unit})"
    return f"{objective.name.replace('_', ' ')}{unit} {arrow}"
