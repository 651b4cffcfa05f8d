"""What a study has learned about its choices, for people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autopeft.objective.objective import Objective
from autopeft.report.baseline import POINTS
from autopeft.search.effects import N_TOLD, Effect, effects
from autopeft.study.trial import TrialRecord

WIDTH = 1.96
"""Standard deviations of half an interval of 95 per cent."""

SLIGHT = 0.01
"""Below which a gain that is told apart from more is none, in the unit of the objective."""


@dataclass(frozen=True)
class Learned:
    """The effects of choices on the first measured objective.

    Attributes:
        objective: that they are about.
        unit: by what effects are multiplied to be told, 100 for points of a share.
        effects: the best first; none where too few trials have ended.
    """

    objective: Objective
    unit: float
    effects: tuple[Effect, ...]

    @property
    def rows(self) -> list[tuple[str, float, float]]:
        """Each choice with its gain in the unit, positive for better, and half its interval."""
        return [
            (e.what, -self.unit * e.loss, self.unit * WIDTH * e.deviation) for e in self.effects
        ]

    @property
    def sentence(self) -> str:
        """The two surest effects, and a larger size that adds nothing; empty where none is sure."""
        sure = [e for e in self.effects if abs(e.loss) > WIDTH * e.deviation]
        sure.sort(key=lambda effect: -abs(effect.loss) / effect.deviation)
        told = [f"{e.what} {self._gain(e)}" for e in sure[:2]]
        vain = [e for e in self.effects if e.is_size and self._adds_nothing(e)]
        told += [f"{e.what} adds nothing" for e in vain[:1]]
        return "; ".join(told)

    def _gain(self, effect: Effect) -> str:
        verb = "gains" if effect.loss < 0 else "costs"
        size, margin = (self.unit * each for each in (abs(effect.loss), WIDTH * effect.deviation))
        name = "points" if self.unit == POINTS else f"of {self.objective.name}"
        return f"{verb} {size:.2g} ± {margin:.1g} {name}"

    def _adds_nothing(self, effect: Effect) -> bool:
        return effect.loss > -effect.deviation and -effect.loss + WIDTH * effect.deviation < SLIGHT


def learned(records: Sequence[TrialRecord], objectives: Sequence[Objective]) -> Learned | None:
    """What the latest complete trials tell, without repeats; None where nothing is measured."""
    quality = next((objective for objective in objectives if not objective.known), None)
    if quality is None:
        return None
    complete = [r for r in records if r.state == "complete" and r.repeat_of is None][-N_TOLD:]
    values = [record.values[quality.name] for record in complete]
    is_share = quality.goal == "maximize" and all(0 <= value <= 1 for value in values)
    losses = np.array([quality.loss(value) for value in values])
    found = effects([record.config for record in complete], losses)
    return Learned(quality, POINTS if is_share else 1, tuple(found))
