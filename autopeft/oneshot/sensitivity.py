"""Sensitivity: what the first step of a training promises, placement by placement."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Generator, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from pydantic import Field
from safetensors.torch import load_file
from torch import Tensor

from autopeft.core.config import PeftConfig, Placement
from autopeft.core.errors import AttachError
from autopeft.core.order import Order
from autopeft.core.report import Proposals, Report
from autopeft.method.member import Member
from autopeft.oneshot.course import gradients
from autopeft.oneshot.greedy import proposed
from autopeft.oneshot.proposer import Problem, Proposer
from autopeft.train.lent import Lent
from autopeft.train.member_training import STATE_FILE
from autopeft.train.trainer import Trainer


class Sensitivity(Proposer):
    """SPT's: a backward pass over some examples says where a loss is sensitive, and to what.

    A placement on a layer is worth how much the loss falls, to first order, in a step of its
    learning rate in every element, as Adam's first one is. Directions come from one half of the
    examples and their worth from the other, so that nothing is won where examples only disagree.
    The head is trained before. Configurations are filled with what is worth most for its
    parameters.

    Attributes:
        num_samples: training examples of each backward pass, of which every kind of placement that
            is met takes one.

    References:
        He et al., "Sensitivity-Aware Visual Parameter-Efficient Fine-Tuning", 2023, equations 2 to
        4, where the sensitivity is that of the backbone's own weights.
    """

    num_samples: int = Field(default=256, ge=2)

    @property
    def length(self) -> float:
        return 2.0

    def propose(
        self, problem: Problem, trainer: Trainer, member: int, order: Order
    ) -> Generator[Report | Proposals]:
        base = replace(problem.corner(1.0).config, placements=())
        report, head = _head(trainer, base, order)
        if report is not None and not order.reached:
            yield replace(report, member=member)
        with trainer.lend(base) as lent:
            layers = range(problem.space.n_layers)
            n = torch.Generator().manual_seed(order.seed)
            rows = torch.randperm(len(lent.train), generator=n)[: self.num_samples]
            epochs = order.rungs[-1]

            @cache
            def worth(placement: Placement) -> Mapping[int, float]:
                nonlocal epochs
                epochs += len(rows) / len(lent.train)
                placed = replace(base, placements=(replace(placement, layers=tuple(layers)),))
                try:
                    return _promised(lent, lent.drawn(placed, order.seed), head, rows)
                except AttachError:
                    return defaultdict(float)

            points = proposed(problem, worth, self.n_proposals)
        yield Proposals(member, points, epochs)


def _head(
    trainer: Trainer, config: PeftConfig, order: Order
) -> tuple[Report | None, dict[str, Tensor]]:
    """What is trained besides placements, as long as a trial, and its last report."""
    with TemporaryDirectory() as folder:
        reports = [*trainer([config], Order(order.rungs[-1:], order.seed, folder))]
        file = Path(folder) / STATE_FILE
        tensors = load_file(file) if file.is_file() else {}
        return reports[-1] if reports else None, tensors


def _promised(
    lent: Lent, member: Member, head: Mapping[str, Tensor], rows: Tensor
) -> Mapping[int, float]:
    """What the first step is worth by layer; a tensor that layers share counts at the lowest."""
    member.load_state_dict({**member.state_dict(), **head})
    rows = rows if len(rows) > 1 else rows.repeat(2)
    first, second = (gradients(lent, member, lent.train, rows[i::2]) for i in range(2))
    rates = {id(weight): rate for rate, group in member.groups.items() for weight in group}
    worth: dict[int, float] = defaultdict(float)
    for site in member.sites:
        for weight in site.weights.values():
            if id(weight) in first:
                one, other = first.pop(id(weight)), second[id(weight)]
                gain = (one * other.sign() + other * one.sign()).sum() / 2
                worth[site.placed.layer] += rates[id(weight)] * float(gain)
    return worth
