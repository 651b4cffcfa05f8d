"""Early stopping by what a model expects of a trial."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from autopeft.core.config import PeftConfig
from autopeft.objective.objective import Objective
from autopeft.objective.pareto import hypervolume
from autopeft.search.features import Encoder
from autopeft.search.gain import corner_of, expected_gain
from autopeft.search.promise import LOSSES
from autopeft.search.stopping import AtRungs, Curve, Decision, has_reached
from autopeft.search.surrogate import Surrogate, one_thread

N_LEAST, N_MOST = 6, 150
"""Finished trials below which all go on, and that a model is fitted to, the latest ones."""

WORTH, N_WORTH = 0.0045, 20
"""The share of the hypervolume reached that a trial must be expected to add to go on, once so many
have finished; proportionally less before, while the model knows little."""

Array = NDArray[np.float64]


class ModelBased(AtRungs):
    """Stops a trial whose end is not expected to add enough hypervolume to the finished ones.

    At every rung but the last a Gaussian process learns from the finished trials how the measured
    objectives come out, from features of the configurations and the training losses at the rung.
    The end of a trial is as uncertain as that model, and as noisy as its seed. A training loss that
    is not finite stops it.

    Args:
        rungs: fidelities at which trials are compared, ascending; the last is the end of training.
        objectives: of the study, those that are known in the order of `Curve.known`.

    Raises:
        StudyError: rungs that do not ascend.
    """

    def __init__(self, rungs: Sequence[float], objectives: Sequence[Objective]) -> None:
        super().__init__(rungs)
        self._measured = [objective for objective in objectives if not objective.known]
        known = [objective for objective in objectives if objective.known]
        self._references = np.array([objective.worst for objective in (*self._measured, *known)])

    def _compare(
        self, latest: Mapping[int, Curve], current: Curve, n_passed: int, closed: bool
    ) -> Decision:
        rung = self.rungs[n_passed - 1]
        signals = _signals(current, rung)
        if signals is None:
            return Decision(False, f"a training loss at {rung:g} is not finite")
        finished = self._finished(latest, current, rung)
        if len(finished) < N_LEAST:
            return Decision(True, f"{len(finished)} have finished, too few to learn from")
        try:
            with one_thread():
                share = self._expected_share(finished, current, rung)
        except (RuntimeError, ValueError) as error:  # whatever a model stumbles over
            return Decision(True, f"no model could be fitted: {error}"[:200])
        told = f"expected at {rung:g} to add {share:.2%} to the hypervolume of {len(finished)}"
        return Decision(share >= WORTH * min(1.0, len(finished) / N_WORTH), told)

    def _expected_share(self, finished: Sequence[Curve], current: Curve, rung: float) -> float:
        """The hypervolume that a trial is expected to add, over that of the finished ones.

        Infinite where there is none, or a known loss is not a number.
        """
        rows = _rows([*finished, current], rung)
        ends = np.array([self._end(curve) for curve in finished])
        told = [_expected(rows[:-1], end, rows[-1:]) for end in ends.T]
        means = np.array([[*(mean for mean, _ in told), *current.known]])
        deviations = np.array(
            [[*(deviation for _, deviation in told), *(0.0 for _ in current.known)]]
        )
        reached = np.array(
            [[*end, *curve.known] for end, curve in zip(ends, finished, strict=True)]
        )
        corner = corner_of(reached, self._references)
        gain = expected_gain(reached, corner, means, deviations)[0]
        volume = hypervolume(reached, corner)
        return float(gain / volume) if volume > 0 and math.isfinite(gain) else math.inf

    def _finished(self, latest: Mapping[int, Curve], current: Curve, rung: float) -> list[Curve]:
        """The latest finished trials with all that is learned from, by number."""
        usable = [
            curve
            for number, curve in sorted(latest.items())
            if number != current.number
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


def _expected(rows: Array, ends: Array, current: Array) -> tuple[float, float]:
    """Mean and deviation of the end of the trial of a row `(1, d)`, its noise included."""
    model = Surrogate(rows, ends, np.zeros(len(ends)))
    mean, variance = model(current)
    return float(mean[0]), math.sqrt(variance[0] + model.noise)
