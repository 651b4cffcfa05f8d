"""One trial as the rooms above the study read it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from autopeft.core.config import PeftConfig
from autopeft.core.order import Order
from autopeft.core.report import Report
from autopeft.objective.objective import Objective
from autopeft.search.stopping import Curve

State = Literal[
    "complete", "stopped", "rejected", "failed", "interrupted", "running", "paused", "waiting"
]


@dataclass(frozen=True)
class Trial:
    """A trial that is to be trained.

    Attributes:
        number: of the trial within the study, from 0.
        config: what to train.
        order: how far, and where the tensors go.
        protected: whether the trial is never stopped, as baselines are not.
    """

    number: int
    config: PeftConfig
    order: Order
    protected: bool = False


@dataclass(frozen=True)
class TrialRecord:
    """What the study knows of one trial.

    Attributes:
        number: of the trial within the study, from 0.
        state: `complete` (trained to the last rung), `stopped` (early), `rejected` (never
            trained: a limit is exceeded), `failed`, `interrupted` (its process or machine gave up;
            it waits to go on from its last rung), `running`, `paused` (at a rung), `waiting`.
        config: what was, is or will be trained.
        values: by objective, in the user's units; empty unless complete.
        known: the objectives that are computed before training, in the user's units.
        reports: the learning curve, in the order of training.
        baseline: name of the fixed configuration, or None where the search proposed it.
        error: text of a failure or the reason of a rejection, or None.
        seconds: wall time of training and evaluation, or None where none is recorded.
        began: when it was taken up, in seconds since the epoch, or None.
        ended: when it ended, likewise.
        folder: where the trained tensors lie, or None.
        point: the decisions of the space that it was built from; none of a baseline.
        repeat_of: the trial whose configuration this one trains with another seed, or None.
        proposer: name of the one-shot search that this is, with its largest configuration, or None.
        origin: name of the one-shot search that proposed it, or None.
        test: metrics of the test split, by name; only a repeat is scored on it.
        n_seeds: how many fresh trainings the values are the means of; 0 for a training's own.
        margins: by objective, half the width of the 95 % interval of such a mean.
        test_margins: the same of the means on the test split.
    """

    number: int
    state: State
    config: PeftConfig
    values: Mapping[str, float] = field(default_factory=dict)
    known: Mapping[str, float] = field(default_factory=dict)
    reports: tuple[Report, ...] = ()
    baseline: str | None = None
    error: str | None = None
    seconds: float | None = None
    began: float | None = None
    ended: float | None = None
    folder: str | None = None
    point: Mapping[str, Any] = field(default_factory=dict)
    repeat_of: int | None = None
    proposer: str | None = None
    origin: str | None = None
    test: Mapping[str, float] = field(default_factory=dict)
    n_seeds: int = 0
    margins: Mapping[str, float] = field(default_factory=dict)
    test_margins: Mapping[str, float] = field(default_factory=dict)

    @property
    def is_own(self) -> bool:
        """Whether it tries a configuration for the first time."""
        return self.repeat_of is None and self.proposer is None

    @property
    def epochs(self) -> float:
        """How far it was trained, as its reports say."""
        return self.reports[-1].fidelity if self.reports else 0.0

    @property
    def trains_nothing(self) -> bool:
        """Whether it is the model as it comes, see `Report`."""
        return bool(self.reports) and self.reports[-1].trains_nothing

    def curve(self, objectives: Iterable[Objective]) -> Curve:
        """The trial as a stopper sees it; baselines, repeats and searches are never stopped.

        One that trains nothing has no curve.
        """
        known = (o.loss(self.known.get(o.name, math.nan)) for o in objectives if o.known)
        protected = self.baseline is not None or not self.is_own
        reports = () if self.trains_nothing else self.reports
        ended = self.state not in ("running", "paused", "interrupted")
        return Curve(self.number, tuple(known), reports, protected, self.config, ended)
