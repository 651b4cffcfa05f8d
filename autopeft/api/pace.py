"""How long the trainings of a study take, told by a minute of one."""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import median_low

import numpy as np
import torch

from autopeft.api.run import Prepared
from autopeft.core.config import PeftConfig
from autopeft.core.errors import StudyError
from autopeft.core.order import Order
from autopeft.core.quantity import duration
from autopeft.core.report import Failure, Report
from autopeft.core.settings import TrainSettings
from autopeft.oneshot.registry import make_proposer
from autopeft.study.spec import FidelitySection, Search
from autopeft.task.data import Data
from autopeft.task.tokens import Examples

STEPS = 4, 24
"""Optimizer steps of a calibration; the first warm up, the others are timed if there is time."""

PATIENCE = 30.0
"""Seconds of the first steps after which there are no others."""

N_DRAWN = 9
"""Configurations of which that in the middle, by trained parameters, is timed."""


@dataclass(frozen=True)
class Pace:
    """The seconds of a training on one worker.

    Attributes:
        epoch: of one epoch of the training split.
        evaluation: of the whole validation split.
    """

    epoch: float
    evaluation: float

    def trial(self, fidelity: FidelitySection, n_rungs: int) -> float:
        """Seconds of a trial that is trained to its last rung."""
        return self.epoch * fidelity.bounds[1] + self.evaluation * n_rungs

    def study(self, search: Search, fidelity: FidelitySection, n_rungs: int, workers: int) -> float:
        """Seconds of all trials and of the trainings that follow, at most, on so many workers."""
        one = self.trial(fidelity, n_rungs)
        return one * (search.n_trials + follow(search, fidelity)) / workers

    def told(
        self, search: Search, fidelity: FidelitySection, n_rungs: int, workers: int
    ) -> dict[str, str]:
        """The same in words, by what takes it."""
        more = follow(search, fidelity)
        again = f" and trainings as long as {more:.0f} more" if more else ""
        side = f"{workers} {'worker' if workers == 1 else 'workers'}"
        seconds = self.study(search, fidelity, n_rungs, workers)
        return {
            "one trial": f"about {duration(self.trial(fidelity, n_rungs))}",
            "the study": f"about {duration(seconds)}: {search.n_trials} trials{again} on {side}",
        }


def follow(search: Search, fidelity: FidelitySection) -> float:
    """How many trials long all is together that comes on top of `n_trials`, at most."""
    proposers = [make_proposer(document) for document in search.proposers]
    proposed = sum(proposer.length + proposer.n_proposals for proposer in proposers)
    if not search.n_finalists:
        return proposed
    others = search.n_finalists - 1 + len(search.baselines)
    own = sum(length / fidelity.bounds[1] for length in fidelity.lengths)
    return proposed + search.n_seeds * (own + others * fidelity.stretch)


def pace(prepared: Prepared, data: Data, examples: Examples) -> Pace:
    """The pace of a configuration from the middle of the space, from a few steps of its training.

    Args:
        prepared: the study.
        data: of its task.
        examples: the same for its model.

    Raises:
        StudyError: the training fails.
    """
    config = _middle(prepared)
    n_steps = -(-len(data.train) // TrainSettings(**dict(config.train)).batch_size)
    rungs = sorted({min(1.0, steps / n_steps) for steps in STEPS})
    threads = torch.get_num_threads()
    try:
        return _timed(prepared, config, tuple(rungs), len(data.validation), examples)
    finally:
        torch.set_num_threads(threads)


def _middle(prepared: Prepared) -> PeftConfig:
    rng, params = np.random.default_rng(0), prepared.known["trainable_params"].value
    drawn = [prepared.space.draw(rng).config for _ in range(N_DRAWN)]
    by_size = {params(config): config for config in drawn}
    return by_size[median_low(by_size)]


def _timed(
    prepared: Prepared,
    config: PeftConfig,
    rungs: tuple[float, ...],
    n_validation: int,
    examples: Examples,
) -> Pace:
    evaluator = prepared.evaluator(examples)()
    evaluator.join(0, config, Order(rungs))
    reports: list[Report] = []
    begun = time.perf_counter()
    while len(reports) < len(rungs) and (not reports or time.perf_counter() - begun < PATIENCE):
        for event in evaluator.advance():
            if isinstance(event, Failure):
                raise StudyError(f"a first training fails: {event.error}", prepared.spec.place)
            if isinstance(event, Report):
                reports.append(event)
    evaluator.leave(0)
    told = reports[-1].metrics
    rows = told.get("n_validation") or n_validation
    return Pace(told["epoch_seconds"], told["eval_seconds"] * n_validation / rows)
