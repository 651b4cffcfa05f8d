"""A supernet: shared weights of all sizes, trained by random configurations."""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from pydantic import Field
from safetensors.torch import load_file

from autopeft.core.errors import DivergenceError
from autopeft.core.order import Order
from autopeft.core.report import Proposals, Report
from autopeft.core.settings import TrainSettings
from autopeft.oneshot.evolution import Judge, evolve
from autopeft.oneshot.proposer import Problem, Proposer
from autopeft.oneshot.shared import Shared
from autopeft.space.bound import Drawn
from autopeft.train.descent import Descent
from autopeft.train.evaluation import evaluate
from autopeft.train.lent import Lent
from autopeft.train.member_training import STATE_FILE, Training
from autopeft.train.randomness import Randomness
from autopeft.train.trainer import Trainer

N_SHAPES = 64
"""Random configurations of which the largest of every placement is taken."""


class Supernet(Proposer):
    """NOAH's: every step trains another random configuration on weights that all of them share.

    Afterwards configurations evolve by what they reach with the weights that they inherit, and
    some of those that nothing dominates are proposed.

    Attributes:
        epochs: of the shared training, in trainings of a trial.
        sandwich: whether every step trains the least and the largest configuration as well.
        n_eval: validation examples that judge a configuration.
        population: of a generation.
        generations: of the evolution.
        n_proposals: at most.

    References:
        Zhang et al., "Neural Prompt Search", 2022, section 3; Yu and Huang, "Universally Slimmable
        Networks and Improved Training Techniques", 2019, section 3.3 (sandwich rule).
    """

    epochs: float = Field(default=3.0, gt=0, le=1_000)
    sandwich: bool = False
    n_eval: int = Field(default=200, ge=1)
    population: int = Field(default=24, ge=2)
    generations: int = Field(default=4, ge=0)
    n_proposals: int = Field(default=4, ge=1)

    def propose(
        self, problem: Problem, trainer: Trainer, member: int, order: Order
    ) -> Generator[Report | Proposals]:
        with trainer.lend(problem.corner(1.0).config) as lent:
            shared = self.shared(problem, lent, order.seed)
            yield from self.train(problem, lent, shared, member, order)
            judge, rng = self.inherited(problem, lent, shared), np.random.default_rng(order.seed)
            found = evolve(problem, judge, rng, self.population, self.generations)
        points = tuple(dict(each.point) for each in found[: self.n_proposals])
        yield Proposals(member, points, self.epochs * order.rungs[-1] * self._n_together)

    def shared(self, problem: Problem, lent: Lent, seed: int) -> Shared:
        """Fresh weights of the largest sizes."""
        rng = np.random.default_rng((seed, 1))
        samples = [problem.corner(1.0), *(problem.draw(rng) for _ in range(N_SHAPES))]
        return Shared(lent, [each.config for each in samples], seed)

    def inherited(self, problem: Problem, lent: Lent, shared: Shared) -> Judge:
        """What a configuration reaches with shared weights, by measured objective."""
        measured = [objective for objective in problem.objectives if not objective.known]
        rows = lent.validation.evenly(self.n_eval)

        def judge(drawn: Drawn) -> list[float]:
            try:
                with lent.carrying(shared.member(drawn.config)) as inheriting:
                    metrics = evaluate(lent.passes, inheriting, lent.validation, rows, lent.measure)
            except DivergenceError:
                return [math.inf for _ in measured]
            return [objective.loss(metrics[objective.name]) for objective in measured]

        return judge

    def train(
        self, problem: Problem, lent: Lent, shared: Shared, member: int, order: Order
    ) -> Iterator[Report]:
        """Trains from the last rung on that is known."""
        length = self.epochs * order.rungs[-1]
        rungs = *map(float, range(1, math.ceil(length))), length
        own = replace(order, rungs=rungs, proposer=None)
        if order.reached >= length:
            shared.load_state_dict(load_file(Path(str(order.folder)) / STATE_FILE))
            return
        settings = TrainSettings(**dict(problem.corner(1.0).config.train))
        descent = Descent(shared.groups, lent.train, lent.passes.criterion, settings, own)
        training = Training(shared, descent, Randomness(order.seed), own)
        if order.reached:
            training.go_on()
        while descent.rungs:
            self._take_step(problem, lent, shared, training)
            if descent.is_at_rung:
                rung = descent.rung
                report = Report(descent.step, rung, descent.report(), member)
                training.keep(rung)
                yield report

    def _take_step(self, problem: Problem, lent: Lent, shared: Shared, training: Training) -> None:
        descent, began = training.descent, time.perf_counter()
        rng = np.random.default_rng((training.order.seed, 2, descent.step))
        with training.randomness.resumed():
            losses = [
                self._learned(lent, shared, descent, drawn) for drawn in self._drawn(problem, rng)
            ]
        descent.learn(torch.stack(losses).mean(), time.perf_counter() - began)

    @property
    def _n_together(self) -> int:
        """Configurations of one step."""
        return 3 if self.sandwich else 1

    def _drawn(self, problem: Problem, rng: np.random.Generator) -> list[Drawn]:
        """The configurations of one step."""
        more = [problem.corner(0.0), problem.corner(1.0)] if self.sandwich else []
        return [problem.draw(rng), *more]

    def _learned(self, lent: Lent, shared: Shared, descent: Descent, drawn: Drawn) -> torch.Tensor:
        """The loss of a configuration, whose gradients are in place."""
        with lent.carrying(shared.member(drawn.config), training=True):
            outputs, targets = lent.passes.outputs(lent.train, descent.rows, [len(descent.rows)])
            loss = descent.loss(outputs, targets)
            (loss / self._n_together).backward()
        return loss.detach()
