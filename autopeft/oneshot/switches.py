"""Switches: a gate at every site learns on held-out examples whether the site is worth its size."""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping
from dataclasses import replace

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from autopeft.core.order import Order
from autopeft.core.report import Proposals, Report
from autopeft.core.settings import TrainSettings
from autopeft.method.hook import TrainedSite
from autopeft.method.member import Member
from autopeft.oneshot.course import largest, learned, trained
from autopeft.oneshot.greedy import Worth, proposed, summed
from autopeft.oneshot.proposer import Problem, Proposer
from autopeft.oneshot.shared import shared_name, trained_weights
from autopeft.train.descent import Descent
from autopeft.train.lent import Lent
from autopeft.train.trainer import Trainer

N_BISECTIONS = 60


class Switches(Proposer):
    """S³Delta's: the largest configuration is trained with a switch at every site.

    A switch is open with a probability p and lets through a random share of what its site has
    learned, all of it or nothing in the limit. One shift of all logits keeps the parameters that
    are expected at the budget. In every step tensors learn from training examples and logits from
    as many validation examples, both to first order. Configurations are filled with the sites of
    greatest p; the largest one fills the limits.

    Attributes:
        epochs: in trainings of a trial; as much again is for the switches.
        share: of all parameters, what is expected, where the limit on them is no less.
        switch_rate: the learning rate of the logits.
        temperature: of the shares; low ones are near 0 and 1.

    References:
        Hu et al., "Sparse Structure Search for Delta Tuning", 2022, section 3 (shifted global
        sigmoid, bi-level optimisation); Maddison et al., "The Concrete Distribution", 2017,
        equation 5 (a relaxed switch).
    """

    epochs: float = Field(default=2.0, gt=0, le=1_000)
    share: float = Field(default=0.25, gt=0, lt=1)
    switch_rate: float = Field(default=0.1, gt=0)
    temperature: float = Field(default=1.0, gt=0)

    @property
    def length(self) -> float:
        return 2 * self.epochs

    def propose(
        self, problem: Problem, trainer: Trainer, member: int, order: Order
    ) -> Generator[Report | Proposals]:
        corner, length = problem.corner(1.0).config, self.epochs * order.rungs[-1]
        settings = TrainSettings(**dict(corner.train))
        with trainer.lend(corner) as lent:
            switched = self.switched(problem, lent, order.seed)

            def step(descent: Descent) -> Tensor:
                rng = np.random.default_rng((order.seed, 3, descent.step))
                opened = switched.draw(rng, self.temperature)
                loss = learned(lent, switched.member(opened.detach()), descent)
                n = len(descent.rows)
                rng = np.random.default_rng((order.seed, 4, descent.step, int(descent.rows[0])))
                rows = torch.from_numpy(rng.integers(len(lent.validation), size=n))
                switched.judge(lent, opened, rows)
                return loss

            yield from trained(lent, switched, step, settings, order, length, member)
            points = proposed(problem, switched.worth(lent), self.n_proposals)
        yield Proposals(member, points, 2 * length)

    def switched(self, problem: Problem, lent: Lent, seed: int) -> Switched:
        """The largest configuration, with even switches within the limit on parameters."""
        config = largest(problem, lent)
        drawn = lent.drawn(config, seed)
        n = sum(_numel(drawn))
        left = problem.limits.get("trainable_params", math.inf) - (problem.params(config) - n)
        budget = max(1.0, min(self.share * n, left))
        return Switched(drawn, self.switch_rate, budget)


class Switched:
    """A configuration in training, with a switch at every site.

    Args:
        drawn: its tensors, fresh; what a switch closes is as they are now.
        switch_rate: the learning rate of logits.
        budget: elements of open sites that are expected.

    Attributes:
        groups: what is trained, by learning rate.
    """

    def __init__(self, drawn: Member, switch_rate: float, budget: float) -> None:
        self._drawn, self._budget = drawn, budget
        weights = {id(w): w for site in drawn.sites for w in site.weights.values()}
        self._start = {key: weight.detach().clone() for key, weight in weights.items()}
        device = next((site.device for site in drawn.sites), None)
        self._numel = torch.tensor(_numel(drawn), device=device)
        self._logits = nn.Parameter(torch.zeros(len(drawn.sites), device=device))
        self.groups = drawn.groups
        self.groups.setdefault(switch_rate, []).append(self._logits)

    def state_dict(self) -> dict[str, Tensor]:
        """All of it by name, sharing its memory."""
        return {**self._drawn.state_dict(), "switches": self._logits.detach()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Puts back what `state_dict` gave."""
        self._drawn.load_state_dict({n: t for n, t in state.items() if n != "switches"})
        self._logits.detach().copy_(state["switches"])

    @property
    def shifted(self) -> Tensor:
        """The logits at which the expected elements are the budget, (sites)."""
        logits = self._logits.detach().double()
        low, high = (end - float(logits.mean()) for end in (-1e3, 1e3))
        for _ in range(N_BISECTIONS):
            shift = (low + high) / 2
            expected = float((self._numel * (logits + shift).sigmoid()).sum())
            low, high = (low, shift) if expected > self._budget else (shift, high)
        return self._logits + shift

    def draw(self, rng: np.random.Generator, temperature: float) -> Tensor:
        """The share that every switch lets through, (sites)."""
        noise = torch.from_numpy(rng.logistic(size=len(self._logits))).to(self._logits)
        return ((self.shifted + noise) / temperature).sigmoid()

    def member(self, opened: Tensor) -> Member:
        """The configuration with a share of what each site has learned.

        Args:
            opened: the shares, (sites).
        """
        sites = [
            replace(site, weights={}, frozen={**site.frozen, **self._parts(site, share)})
            for site, share in zip(self._drawn.sites, opened, strict=True)
        ]
        return Member(self._drawn.config, self._drawn.modules_to_save, sites, self._drawn.saved)

    def judge(self, lent: Lent, opened: Tensor, rows: Tensor) -> None:
        """Adds the gradients of logits, by some validation examples, to those in place."""
        criterion = lent.passes.criterion
        with lent.carrying(self.member(opened)):
            outputs, targets = lent.passes.outputs(lent.validation, rows, [len(rows)])
            loss = criterion.losses(outputs, targets).sum()
        weight = max(1e-6, criterion.weights(targets).sum().item())
        (gradient,) = torch.autograd.grad(loss / weight, [self._logits])
        known = self._logits.grad
        self._logits.grad = gradient if known is None else known + gradient

    def worth(self, lent: Lent) -> Worth:
        """The elements of a placement times how probable they are, by layer."""
        open_at = self.shifted.detach().sigmoid().tolist()
        by_name: dict[str, float] = {}
        for site, probability in zip(self._drawn.sites, open_at, strict=True):
            for weight in trained_weights(site):
                by_name.setdefault(shared_name(site, weight), probability)

        def of_site(site: TrainedSite, counted: set[str]) -> float:
            fresh = {shared_name(site, w): w for w in trained_weights(site)}
            fresh = {name: w for name, w in fresh.items() if name not in counted}
            counted |= fresh.keys()
            return sum(by_name.get(n, 0.0) * math.prod(w.shape) for n, w in fresh.items())

        return summed(lent, self._drawn, of_site)

    def _parts(self, site: TrainedSite, share: Tensor) -> dict[str, Tensor]:
        starts = ((name, weight, self._start[id(weight)]) for name, weight in site.weights.items())
        return {name: start + share.to(start) * (weight - start) for name, weight, start in starts}


def _numel(member: Member) -> list[int]:
    """Trained elements site by site; those of a tensor that several share count at the first."""
    seen: set[int] = set()
    counts: list[int] = []
    for site in member.sites:
        fresh = {id(w): w.numel() for w in site.weights.values() if id(w) not in seen}
        seen |= fresh.keys()
        counts.append(sum(fresh.values()))
    return counts
