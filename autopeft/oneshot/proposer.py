"""What a one-shot search is given, and what it is."""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import Field

from autopeft.core.config import LEARNING_RATE, PeftConfig
from autopeft.core.order import Order
from autopeft.core.report import Proposals, Report
from autopeft.core.validation import Section
from autopeft.objective.objective import Objective
from autopeft.objective.quantity import Known
from autopeft.search.candidates import corner
from autopeft.space.bound import BoundSpace, Drawn
from autopeft.train.trainer import Trainer

N_TRIES = 20
"""Random points that are drawn where none is allowed."""

_TRAINING = re.compile(r"(train|backbone)\b")


@dataclass(frozen=True)
class Problem:
    """What a study searches for.

    Attributes:
        space: in which proposals lie.
        objectives: of the study.
        known: how quantities are computed that are known before training.
        limits: the greatest value of each limited quantity.
    """

    space: BoundSpace
    objectives: tuple[Objective, ...]
    known: Mapping[str, Known]
    limits: Mapping[str, float]

    @property
    def middle(self) -> Mapping[str, Any]:
        """Of all that says how something is trained, not what is placed."""
        return {
            name: dimension.from_unit(0.5)
            for name, dimension in self.space.dimensions.items()
            if _TRAINING.match(name) or LEARNING_RATE in name
        }

    def placed(self, drawn: Drawn) -> Drawn:
        """The point with that middle."""
        return self.space.at({**drawn.point, **self.middle})

    def corner(self, unit: float) -> Drawn:
        """The least of everything for 0, the most for 1."""
        return self.placed(corner(self.space, unit))

    def draw(self, rng: np.random.Generator) -> Drawn:
        """A random point, uniform or of few ideas; an allowed one, where a few tries meet it."""
        for _ in range(N_TRIES):
            is_sketch = rng.random() < 0.5
            drawn = self.placed(self.space.sketch(rng) if is_sketch else self.space.draw(rng))
            if self.allows(drawn):
                break
        return drawn

    def costs(self, drawn: Drawn) -> list[float]:
        """Losses of the known objectives, or estimates where those take long."""
        known = [(o, self.known[o.name]) for o in self.objectives if o.known]
        return [o.loss((k.estimate or k.value)(drawn.config)) for o, k in known]

    def params(self, config: PeftConfig) -> float:
        """Those that are trained."""
        return self.known["trainable_params"].value(config)

    def excess(self, config: PeftConfig) -> float:
        """The greatest share that it takes of a limit, 0 without any; infinite for nothing."""
        if not config.placements:
            return math.inf
        shares = [self.known[n].value(config) / max(most, 1e-9) for n, most in self.limits.items()]
        return max(shares, default=0.0)

    def allows(self, drawn: Drawn) -> bool:
        """Whether it places anything, and keeps the limits."""
        limits = ((self.known[name].value, most) for name, most in self.limits.items())
        keeps = all(value(drawn.config) <= most for value, most in limits)
        return keeps and bool(drawn.config.placements)


class Proposer(Section, ABC):
    """A search that trains for a while and then says which configurations are worth a trial.

    Attributes:
        n_proposals: at most.
    """

    n_proposals: int = Field(default=4, ge=1)

    @property
    @abstractmethod
    def length(self) -> float:
        """How many trainings of a trial it takes, about."""

    @abstractmethod
    def propose(
        self, problem: Problem, trainer: Trainer, member: int, order: Order
    ) -> Generator[Report | Proposals]:
        """Reports at every rung of its training, then the proposals.

        It has the backbone to itself until it is through, or closed.

        Args:
            problem: that of the study.
            trainer: with the backbone and the data.
            member: of which it reports.
            order: the last rung is how far a trial is trained; the seed, and where what is
                trained is saved at every rung.
        """
