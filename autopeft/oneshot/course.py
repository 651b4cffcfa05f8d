"""A training of a search's own, that goes on from every rung."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from autopeft.core.config import PeftConfig, Placement
from autopeft.core.errors import AttachError, SpaceError
from autopeft.core.order import Order
from autopeft.core.report import Report
from autopeft.core.settings import TrainSettings
from autopeft.method.member import Member
from autopeft.oneshot.proposer import Problem
from autopeft.task.batches import Encoded
from autopeft.train.descent import Descent
from autopeft.train.lent import Lent
from autopeft.train.member_training import STATE_FILE, Stateful, Training
from autopeft.train.randomness import Randomness

NOTHING = (
    "a one-shot search can train no placement of the space: "
    "they start from training examples or do not fit the backbone"
)


class Learner(Stateful, Protocol):
    """Tensors that a search trains.

    Attributes:
        groups: what is trained, by learning rate.
    """

    @property
    def groups(self) -> dict[float, list[nn.Parameter]]: ...


def largest(problem: Problem, lent: Lent) -> PeftConfig:
    """The most of everything, without what cannot be trained here.

    Raises:
        SpaceError: nothing can.
    """
    config = problem.corner(1.0).config

    def fits(placement: Placement) -> bool:
        try:
            lent.drawn(replace(config, placements=(placement,)), 0)
        except AttachError:
            return False
        return True

    placements = tuple(filter(fits, config.placements))
    if not placements:
        raise SpaceError(NOTHING)
    return replace(config, placements=placements)


Step = Callable[[Descent], Tensor]
"""Leaves the gradients of a micro-batch in place, and returns its loss."""


def trained(
    lent: Lent,
    learner: Learner,
    step: Step,
    settings: TrainSettings,
    order: Order,
    length: float,
    member: int,
) -> Iterator[Report]:
    """Trains for so many epochs, from the last rung on that is known; a report an epoch.

    Args:
        lent: the backbone with the data.
        learner: what is trained.
        step: how.
        settings: learning rate, batch size and schedule.
        order: of the search.
        length: epochs.
        member: of which the reports are.
    """
    rungs = *map(float, range(1, math.ceil(length))), length
    own = replace(order, rungs=rungs, proposer=None)
    if order.reached >= length:
        try:
            learner.load_state_dict(load_file(Path(str(order.folder)) / STATE_FILE))
        except (OSError, SafetensorError):
            own = replace(own, reached=0.0)
        else:
            return
    descent = Descent(learner.groups, lent.train, lent.passes.criterion, settings, own)
    training = Training(learner, descent, Randomness(order.seed), own)
    if own.reached:
        training.go_on()
    while descent.rungs:
        began = time.perf_counter()
        with training.randomness.resumed():
            loss = step(descent)
        descent.learn(loss, time.perf_counter() - began)
        if descent.is_at_rung:
            rung = descent.rung
            report = Report(descent.step, rung, descent.report(), member)
            training.keep(rung)
            if rung > order.reached:
                yield report


def learned(lent: Lent, member: Member, descent: Descent, n_together: int = 1) -> Tensor:
    """The loss of a configuration, of whose gradients those in place are a share."""
    with lent.carrying(member, training=True):
        outputs, targets = lent.passes.outputs(lent.train, descent.rows, [len(descent.rows)])
        loss = descent.loss(outputs, targets)
        (loss / n_together).backward()
    return loss.detach()


def gradients(lent: Lent, member: Member, examples: Encoded, rows: Tensor) -> dict[int, Tensor]:
    """Those of the mean loss of some examples, by the identity of the weight."""
    weights = member.trainable().values()
    with lent.carrying(member):
        for batch in rows.split(TrainSettings(**dict(member.config.train)).batch_size):
            outputs, targets = lent.passes.outputs(examples, batch, [len(batch)])
            (lent.passes.criterion.losses(outputs, targets).sum() / len(rows)).backward()
    told = {id(weight): weight.grad for weight in weights if weight.grad is not None}
    for weight in weights:
        weight.grad = None
    return told
