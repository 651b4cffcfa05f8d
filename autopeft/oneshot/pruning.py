"""Pruning: the largest configuration is trained once, and what did least for it is left out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Generator, Mapping, Sequence

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from autopeft.core.order import Order
from autopeft.core.report import Proposals, Report
from autopeft.core.settings import TrainSettings
from autopeft.method.hook import TrainedSite
from autopeft.method.member import Member
from autopeft.oneshot.course import gradients, largest, learned, trained
from autopeft.oneshot.greedy import proposed, summed
from autopeft.oneshot.proposer import Problem, Proposer
from autopeft.oneshot.shared import shared_name, trained_weights
from autopeft.train.descent import Descent
from autopeft.train.lent import Lent
from autopeft.train.trainer import Trainer

N_POINTS = 4
"""Between the start and the end of a training, at which gradients are taken."""


class Pruning(Proposer):
    """S-BitFit's and AdaLoRA's: parts of the largest configuration, by how much they did for it.

    It is trained as a trial is. The credit of an element is its part in the fall of the loss of
    validation examples on the straight way from where the training began to where it ended; all
    credits together are the fall, but for that of the head. A smaller size keeps the ranks or rows
    of most credit together, of methods that nest and tensors that are cut along one axis;
    configurations of all sizes are filled with what has most credit for its parameters. What the
    largest configuration does not have has none.

    Attributes:
        epochs: in trainings of a trial.
        num_samples: validation examples of each of a few gradients.

    References:
        Lawton et al., "Neural Architecture Search for Parameter-Efficient Fine-Tuning of Large
        Pre-trained Language Models", 2023, section 3 (scores of first order); Zhang et al.,
        "AdaLoRA", 2023, equation 8 (ranks by what their elements matter); Sundararajan et al.,
        "Axiomatic Attribution for Deep Networks", 2017, equation 1 (the sum over the way).
    """

    epochs: float = Field(default=1.0, gt=0, le=1_000)
    num_samples: int = Field(default=256, ge=1)

    @property
    def length(self) -> float:
        return self.epochs

    def propose(
        self, problem: Problem, trainer: Trainer, member: int, order: Order
    ) -> Generator[Report | Proposals]:
        corner, length = problem.corner(1.0).config, self.epochs * order.rungs[-1]
        settings = TrainSettings(**dict(corner.train))
        with trainer.lend(corner) as lent:
            whole = lent.drawn(largest(problem, lent), order.seed)
            began = {name: tensor.clone() for name, tensor in whole.state_dict().items()}

            def step(descent: Descent) -> Tensor:
                return learned(lent, whole, descent)

            yield from trained(lent, whole, step, settings, order, length, member)
            rows = lent.validation.evenly(self.num_samples)
            credit = credited(lent, whole, began, rows)
            worth = summed(lent, whole, lambda site, seen: _kept(credit, site, seen))
            points = proposed(problem, worth, self.n_proposals)
        yield Proposals(member, points, length + N_POINTS * len(rows) / len(lent.train))


def credited(
    lent: Lent, member: Member, began: Mapping[str, Tensor], rows: Tensor
) -> dict[str, Tensor]:
    """The part of every element in the fall of the loss since a training began, by shared name.

    The gradients on the way are weighted as Gauss and Legendre do.

    Args:
        lent: the backbone.
        member: what was trained, as it is again afterwards.
        began: its `state_dict` before.
        rows: validation examples.
    """
    ended = {name: tensor.clone() for name, tensor in member.state_dict().items()}
    weights = {
        shared_name(site, weight): site.weights[weight.name]
        for site in member.sites
        for weight in trained_weights(site)
    }
    sums = {id(weight): torch.zeros_like(weight) for weight in weights.values()}
    for node, share in zip(*np.polynomial.legendre.leggauss(N_POINTS), strict=True):
        at = (1 + float(node)) / 2
        member.load_state_dict({n: began[n].lerp(end, at) for n, end in ended.items()})
        for key, gradient in gradients(lent, member, lent.validation, rows).items():
            if key in sums:
                sums[key] += float(share) / 2 * gradient
    member.load_state_dict(ended)
    starts = {id(weight): began[name] for name, weight in member.trainable().items()}
    return {n: sums[id(w)] * (starts[id(w)] - w.detach()) for n, w in weights.items()}


def _kept(credit: Mapping[str, Tensor], site: TrainedSite, counted: set[str]) -> float:
    """The credit of what a site of any size keeps; names that are counted count no more."""
    whole, by_size = 0.0, defaultdict[tuple[int, int], list[Tensor]](list)
    for weight in trained_weights(site):
        name = shared_name(site, weight)
        if name not in credit or name in counted:
            continue
        counted.add(name)
        of = credit[name]
        cut = _cut(weight.shape, of.shape)
        if not cut:
            whole += float(of.sum())
        elif len(cut) == 1:
            others = [axis for axis in range(of.dim()) if axis != cut[0]]
            each = of.sum(others) if others else of
            by_size[weight.shape[cut[0]], len(each)].append(each)
    ranks = [torch.stack(of).sum(0).topk(n).values for (n, _), of in by_size.items()]
    return whole + sum(float(of.sum()) for of in ranks)


def _cut(small: Sequence[int], large: Sequence[int]) -> list[int]:
    """The axes along which something is cut."""
    return [axis for axis, (n, of) in enumerate(zip(small, large, strict=True)) if n < of]
