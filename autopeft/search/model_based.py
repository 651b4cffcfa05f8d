"""Early stopping by what a model expects of a trial."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from autopeft.core.config import PeftConfig
from autopeft.objective.objective import Objective
from autopeft.search.features import Encoder
from autopeft.search.history import LOSSES
from autopeft.search.stopping import AtRungs, Curve, Decision, has_reached
from autopeft.search.surrogate import Surrogate, one_thread

N_LEAST, N_MOST = 6, 150
"""Finished trials below which all go on, and that a model is fitted to, the latest ones."""

OPTIMISM = 0.25
"""Deviations by which a trial is taken to come out better than expected."""

Array = NDArray[np.float64]


class ModelBased(AtRungs):
    """Stops a trial that is expected to end dominated by one that has finished.

    At every rung but the last a Gaussian process learns from the finished trials how the measured
    objectives come out, from features of the configurations and the training losses at the rung. A
    trial goes on if its expected end, less a little of the deviation, is beaten by no finished
    trial that costs no more. A training loss that is not finite stops it.

    Args:
        rungs: fidelities at which trials are compared, ascending; the last is the end of training.
        objectives: of the study, those that are known in the order of `Curve.known`.

    Raises:
        StudyError: rungs that do not ascend.
    """

    def __init__(self, rungs: Sequence[float], objectives: Sequence[Objective]) -> None:
        super().__init__(rungs)
        self._measured = [objective for objective in objectives if not objective.known]

    def _compare(self, curves: Sequence[Curve], current: Curve, n_passed: int) -> Decision:
        rung = self.rungs[n_passed - 1]
        signals = _signals(current, rung)
        if signals is None:
            return Decision(False, f"a training loss at {rung:g} is not finite")
        finished = self._finished(curves, current, rung)
        if len(finished) < N_LEAST:
            return Decision(True, f"{len(finished)} have finished, too few to learn from")
        rows = _rows([*finished, current], rung)
        ends = np.array([self._end(curve) for curve in finished])
        try:
            with one_thread():
                expected = np.array([_optimistic(rows[:-1], end, rows[-1:]) for end in ends.T])
        except (RuntimeError, ValueError) as error:  # whatever a model stumbles over
            return Decision(True, f"no model could be fitted: {error}"[:200])
        costs = np.array([curve.known for curve in finished]).reshape(len(finished), -1)
        ahead = (ends <= expected).all(axis=1) & (costs <= np.array(current.known)).all(axis=1)
        if ahead.any():
            first = finished[int(ahead.argmax())].number
            return Decision(False, f"expected at {rung:g} to end behind trial {first}")
        return Decision(True, f"expected at {rung:g} to end behind none of {len(finished)}")

    def _finished(self, curves: Sequence[Curve], current: Curve, rung: float) -> list[Curve]:
        """The latest finished trials with all that is learned from, by number."""
        usable = [
            curve
            for curve in sorted(curves, key=lambda curve: curve.number)
            if curve.number != current.number
            and curve.reports
            and has_reached(curve.reports[-1].fidelity, self.rungs[-1])
            and _signals(curve, rung) is not None
            and all(map(math.isfinite, (*self._end(curve), *curve.known)))
        ]
        return usable[-N_MOST:]

    def _end(self, curve: Curve) -> list[float]:
        """The measured objectives of the last report as losses."""
        metrics = curve.reports[-1].metrics
        return [o.loss(metrics.get(o.name, math.nan)) for o in self._measured]


def _signals(curve: Curve, rung: float) -> list[float] | None:
    """The training losses that are reported at a rung; None where one is not finite."""
    report = next(r for r in curve.reports if has_reached(r.fidelity, rung))
    signals = [report.metrics[name] for name in LOSSES if name in report.metrics]
    return signals if all(map(math.isfinite, signals)) else None


def _rows(curves: Sequence[Curve], rung: float) -> Array:
    """What is known of trials at a rung: their configurations, where all tell them, and losses."""
    rows = np.array([_signals(curve, rung) for curve in curves], dtype=np.float64)
    configs: list[PeftConfig] = [curve.config for curve in curves if curve.config is not None]
    if len(configs) < len(curves):
        return rows
    layers = [layer for c in configs for p in c.placements for layer in p.layers]
    return np.column_stack([Encoder(configs, max(layers, default=0) + 1)(configs), rows])


def _optimistic(rows: Array, ends: Array, current: Array) -> float:
    mean, variance = Surrogate(rows, ends, np.zeros(len(ends)))(current)
    return float(mean[0] - OPTIMISM * math.sqrt(variance[0]))
