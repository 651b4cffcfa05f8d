"""What the curve of a stopped trial promises of its end."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autopeft.core.report import Report
from autopeft.objective.objective import Objective

LOSSES = ("validation_loss", "train_loss")
"""Metrics that tell with little noise early what becomes of a trial."""

N_ENOUGH = 5
"""Complete trials from which it is learned which of them tells most, and how final losses vary."""

N_EXPECTED = 1
"""Complete trials that the expected variance about a line counts as much as."""

Array = NDArray[np.float64]
Curve = Mapping[float, tuple[float, ...]]
"""By fidelity the loss of the objective, and the losses of training; NaN where not reported."""


@dataclass(frozen=True)
class _Line:
    """A straight line from early losses to final ones.

    Attributes:
        early: mean of the early losses.
        final: mean of the final ones.
        slope: of the line.
        variance: of final losses about it.
        n: pairs that it goes through.
        extent: sum of squares of the early losses about their mean; infinite where the slope is
            not learned from them.
    """

    early: float = 0.0
    final: float = 0.0
    slope: float = 1.0
    variance: float = math.inf
    n: int = 0
    extent: float = math.inf

    @classmethod
    def through(cls, early: Array, final: Array, steepest: float, expected: float) -> _Line:
        """The line through pairs `(n,)`.

        The slope is in [0, steepest], and 1 while there are fewer than three pairs. The variance is
        that of the pairs, and so far as they are few the expected one.
        """
        n, n_free = len(early), len(early) - 1
        if not n:
            return cls(variance=expected)
        slope, extent = 1.0, math.inf
        if n >= 3 and np.ptp(early) > 0:
            n_free, extent = n - 2, float(((early - early.mean()) ** 2).sum())
            slope = float(np.clip(((early - early.mean()) * final).sum() / extent, 0.0, steepest))
        strays = final - final.mean() - slope * (early - early.mean())
        variance = (N_EXPECTED * expected + float(strays @ strays)) / (N_EXPECTED + n_free)
        return cls(float(early.mean()), float(final.mean()), slope, variance, n, extent)

    def __call__(self, early: float) -> tuple[float, float]:
        """The final loss that is expected after an early one, and its variance."""
        beyond = early - self.early
        doubt = 1 + 1 / max(1, self.n) + beyond**2 / self.extent
        return self.final + self.slope * beyond, self.variance * doubt


class Promises:
    """The final losses that curves promise, learned from complete trials, at each fidelity once.

    A promise is a straight line from what the complete trials had reported at the same fidelity to
    their final losses: from the objective itself or, once there are enough, from whichever of the
    two losses of training strays least. The fewer complete trials there are, the more the variance
    is that of the objective over all trials.

    Args:
        curves: of trials that have ended.
        finals: their final losses, NaN where they were stopped.
    """

    def __init__(self, curves: Sequence[Curve], finals: Sequence[float]) -> None:
        self._expected = _spread(curves, finals)
        self._pairs: defaultdict[float, list[tuple[float, ...]]] = defaultdict(list)
        for curve, final in zip(curves, finals, strict=True):
            for fidelity, early in curve.items() if math.isfinite(final) else ():
                self._pairs[fidelity].append((*early, final))
        self._lines: dict[float, list[_Line]] = {}

    def __call__(self, curve: Curve) -> tuple[float, float]:
        """The final loss that the last report of a curve promises, and its variance.

        NaN and 0 where the curve tells nothing.
        """
        if not curve:
            return math.nan, 0.0
        fidelity, last = max(curve.items())
        if fidelity not in self._lines:
            self._lines[fidelity] = self._learned(fidelity)
        told = [
            (line.variance, line, early)
            for column, (line, early) in enumerate(zip(self._lines[fidelity], last, strict=True))
            if math.isfinite(early) and (column == 0 or line.n >= N_ENOUGH)
        ]
        if not told:
            return math.nan, 0.0
        _, line, early = min(told, key=lambda each: each[0])
        return line(early)

    def _learned(self, fidelity: float) -> list[_Line]:
        """A line for each loss of the curves."""
        n_losses = 1 + len(LOSSES)
        pairs = np.array(self._pairs[fidelity]).reshape(-1, n_losses + 1)
        lines = []
        for column in range(n_losses):
            early, final = pairs[np.isfinite(pairs[:, column])][:, [column, -1]].T
            steepest = 1.0 if column == 0 else math.inf
            lines.append(_Line.through(early, final, steepest, self._expected))
        return lines


def _spread(curves: Sequence[Curve], finals: Sequence[float]) -> float:
    """The variance of final losses; while they are few, of all trials as far as they have come."""
    losses = [final for final in finals if math.isfinite(final)]
    if len(losses) < N_ENOUGH:
        latest = [curve[max(curve)][0] for curve in curves if curve]
        losses = [loss for loss in latest if math.isfinite(loss)]
    return float(np.var(losses, ddof=1)) if len(losses) > 1 else 0.0


def curve_of(reports: Sequence[Report], objective: Objective) -> Curve:
    """The losses that reports tell, by fidelity."""
    curve = {}
    for report in reports:
        value, *losses = (
            float(report.metrics.get(name, math.nan)) for name in (objective.name, *LOSSES)
        )
        curve[report.fidelity] = (objective.loss(value), *losses)
    return curve
