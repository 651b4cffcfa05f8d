"""What a Pareto plot shows, as numbers: the same for every way of drawing it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from autopeft.core.errors import StudyError
from autopeft.objective import pareto
from autopeft.objective.objective import Objective
from autopeft.report.choice import pick
from autopeft.report.front import Front
from autopeft.report.seeds import contenders, folded
from autopeft.report.value import short, title
from autopeft.study.trial import TrialRecord

ZERO_STEP = 3.0
"""On a logarithmic axis zero lies this factor below the smallest positive value."""


@dataclass(frozen=True)
class Axis:
    """One axis.

    Attributes:
        objective: None for the number of the trial.
        title: name, unit and direction.
        log: whether positions are logarithmic.
        zero: where a value of 0 stands on a logarithmic axis, None where there is none.
    """

    objective: Objective | None
    title: str
    log: bool
    zero: float | None

    def position(self, value: float) -> float:
        """Where the value stands, in the unit of the axis."""
        return self.zero if self.zero is not None and value <= 0 else value

    def ticks(self, values: Sequence[float]) -> dict[float, str]:
        """Labels by position for an axis that holds `values`; none where the default will do."""
        objective = self.objective
        if objective is None or not (self.log or objective.known):
            return {}
        positions = _log_ticks(values) if self.log else _round_ticks(min(values), max(values))
        labels = {tick: short(objective, tick) for tick in positions}
        return labels if self.zero is None else {self.zero: "0"} | labels


@dataclass(frozen=True)
class Dot:
    """One trial on the plot.

    Attributes:
        x: value in the unit of the axis, not its position.
        y: likewise.
        colour: value of the third objective, or None.
        kind: `front`, `dominated`, or `stopped` (at its last report).
    """

    trial: TrialRecord
    x: float
    y: float
    colour: float | None
    kind: Literal["front", "dominated", "stopped"]


@dataclass(frozen=True)
class Chart:
    """A Pareto plot as numbers.

    Attributes:
        colour: the third objective, or None.
        dots: the trials with a place on the plot, in the order of the study.
        line: corners (x, y) of the staircase that the two plotted objectives span.
        knee: the number of the trial at the knee of the front of all objectives, or None.
    """

    x: Axis
    y: Axis
    colour: Objective | None
    dots: tuple[Dot, ...]
    line: tuple[tuple[float, float], ...]
    knee: int | None

    def baselines(self) -> list[Dot]:
        """The dots of complete baselines."""
        return [d for d in self.dots if d.trial.baseline is not None and d.kind != "stopped"]

    def at_knee(self) -> list[Dot]:
        """The dot of the knee, if there is one."""
        return [dot for dot in self.dots if dot.trial.number == self.knee]


def chart(records: Sequence[TrialRecord], objectives: Sequence[Objective]) -> Chart:
    """The first learned objective against the first known one, coloured by the next.

    With a single objective the trials stand side by side.

    Raises:
        StudyError: no objective at all.
    """
    if not objectives:
        raise StudyError("no objective to plot", "objectives")
    quality = next((o for o in objectives if not o.known), objectives[0])
    rest = [o for o in objectives if o is not quality]
    cost = next((o for o in rest if o.known), rest[0] if rest else None)
    colour = next((o for o in rest if o is not cost), None)
    records = folded(records)
    front = Front.of(records, objectives)
    compete = {trial.number for trial in contenders(records)}
    on_front = {trial.number for trial in front.trials}
    drawn = (_dot(r, quality, cost, colour, on_front) for r in records)
    dots = tuple(dot for dot in drawn if dot is not None)
    return Chart(
        x=_axis(cost, [dot.x for dot in dots]),
        y=_axis(quality, [dot.y for dot in dots]),
        colour=colour,
        dots=dots,
        line=_staircase([d for d in dots if d.trial.number in compete], quality, cost)
        if cost
        else (),
        knee=pick(front, "knee").number if cost and len(front.trials) > 2 else None,
    )


def _dot(
    record: TrialRecord,
    quality: Objective,
    cost: Objective | None,
    colour: Objective | None,
    on_front: set[int],
) -> Dot | None:
    """The trial's dot, None where it has no place."""
    if record.state not in {"complete", "stopped"} or record.proposer is not None:
        return None
    values = _values(record)
    x = float(record.number) if cost is None else values.get(cost.name, math.nan)
    y = values.get(quality.name, math.nan)
    if not (math.isfinite(x) and math.isfinite(y)):
        return None
    shade = values.get(colour.name) if colour else None
    kind: Literal["front", "dominated", "stopped"] = "dominated"
    if record.state == "stopped":
        kind = "stopped"
    elif record.number in on_front:
        kind = "front"
    return Dot(record, x, y, shade, kind)


def _values(record: TrialRecord) -> dict[str, float]:
    """What is known of a trial: its values, or its last report beside its known objectives."""
    last = dict(record.reports[-1].metrics) if record.reports else {}
    return {**last, **record.known, **record.values}


def _axis(objective: Objective | None, values: Sequence[float]) -> Axis:
    """Logarithmic where the objective is and its values spread."""
    if objective is None:
        return Axis(None, "trial", False, None)
    positive = [value for value in values if value > 0]
    zeros = len(positive) < len(values)
    spread = bool(positive) and (zeros or max(positive) > 3 * min(positive))
    log = objective.scale == "log" and spread
    zero = min(positive) / ZERO_STEP if log and zeros else None
    return Axis(objective, title(objective), log, zero)


def _log_ticks(values: Sequence[float]) -> list[float]:
    """Round values among the positive ones, two a decade, more within one decade."""
    positive = [value for value in values if value > 0]
    low, high = min(positive), max(positive)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1.0, 3.0) if high > 10 * low else (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)
    ticks = [step * 10.0**power for power in powers for step in steps]
    return [tick for tick in ticks if low <= tick <= high * 1.05]


def _round_ticks(low: float, high: float) -> list[float]:
    """About five multiples of 1, 2 or 5 times a power of ten."""
    width = (high - low) / 5 or abs(low) or 1.0
    power = 10.0 ** math.floor(math.log10(width))
    step = power * min(s for s in (1, 2, 5, 10) if s * power >= width * 0.999)
    first = math.floor(low / step)
    return [step * i for i in range(first, first + 9) if step * i <= high + step / 2]


def _staircase(
    dots: Sequence[Dot], quality: Objective, cost: Objective
) -> tuple[tuple[float, float], ...]:
    """The best quality at each cost over complete trials, as corners from cheap to dear."""
    rows = [(cost.loss(dot.x), quality.loss(dot.y)) for dot in dots]
    best = sorted(
        {
            (row, dot.x, dot.y)
            for row, dot, is_best in zip(rows, dots, pareto.front(rows), strict=True)
            if is_best
        }
    )
    corners: list[tuple[float, float]] = []
    for _, x, y in best:
        if corners:
            corners.append((x, corners[-1][1]))
        corners.append((x, y))
    return tuple(corners)
