"""A supernet: shared weights of all sizes, trained by random configurations."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator

import numpy as np
import torch
from pydantic import Field

from autopeft.core.errors import AttachError, DivergenceError, SpaceError
from autopeft.core.order import Order
from autopeft.core.report import Proposals, Report
from autopeft.core.settings import TrainSettings
from autopeft.method.member import Member
from autopeft.oneshot.course import learned, trained
from autopeft.oneshot.evolution import Judge, evolve
from autopeft.oneshot.proposer import N_TRIES, Problem, Proposer
from autopeft.oneshot.shared import Shared
from autopeft.space.bound import Drawn
from autopeft.train.descent import Descent
from autopeft.train.evaluation import evaluate
from autopeft.train.lent import Lent
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

    References:
        Zhang et al., "Neural Prompt Search", 2022, section 3; Yu and Huang, "Universally Slimmable
        Networks and Improved Training Techniques", 2019, section 3.3 (sandwich rule).
    """

    epochs: float = Field(default=3.0, gt=0, le=1_000)
    sandwich: bool = False
    n_eval: int = Field(default=200, ge=1)
    population: int = Field(default=24, ge=2)
    generations: int = Field(default=4, ge=0)

    @property
    def length(self) -> float:
        return self.epochs * (3 if self.sandwich else 1)

    def propose(
        self, problem: Problem, trainer: Trainer, member: int, order: Order
    ) -> Generator[Report | Proposals]:
        with trainer.lend(problem.corner(1.0).config) as lent:
            shared = self.shared(problem, lent, order.seed)
            yield from self.train(problem, lent, shared, member, order)
            judge, rng = self.inherited(problem, lent, shared), np.random.default_rng(order.seed)
            found = evolve(problem, judge, rng, self.population, self.generations)
        points = tuple(dict(each.point) for each in found[: self.n_proposals])
        yield Proposals(member, points, self.length * order.rungs[-1])

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
            except (AttachError, DivergenceError):
                return [math.nan for _ in measured]
            return [objective.loss(metrics[objective.name]) for objective in measured]

        return judge

    def train(
        self, problem: Problem, lent: Lent, shared: Shared, member: int, order: Order
    ) -> Iterator[Report]:
        """Trains from the last rung on that is known."""
        settings = TrainSettings(**dict(problem.corner(1.0).config.train))
        length = self.epochs * order.rungs[-1]

        def step(descent: Descent) -> torch.Tensor:
            rng = np.random.default_rng((order.seed, 2, descent.step))
            members = [_member(shared, problem, rng), *self._sandwiched(shared, problem)]
            losses = [learned(lent, each, descent, len(members)) for each in members]
            return torch.stack(losses).mean()

        return trained(lent, shared, step, settings, order, length, member)

    def _sandwiched(self, shared: Shared, problem: Problem) -> list[Member]:
        """The least and the largest configuration, where every step trains them."""
        corners = [problem.corner(0.0), problem.corner(1.0)] if self.sandwich else []
        return [shared.member(each.config) for each in corners if each.config.placements]


def _member(shared: Shared, problem: Problem, rng: np.random.Generator) -> Member:
    """A random configuration that can be trained.

    Raises:
        SpaceError: some tries meet none.
    """
    reason = "has no placement"
    for _ in range(N_TRIES):
        config = problem.draw(rng).config
        try:
            if config.placements:
                return shared.member(config)
        except AttachError as error:
            reason = str(error)
    raise SpaceError(f"{N_TRIES} random configurations cannot share weights; the last {reason}")
