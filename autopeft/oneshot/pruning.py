"""Pruning: the largest configuration is trained once, and what did least for it is left out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Generator, Mapping, Sequence

import torch
from pydantic import Field
from torch import Tensor

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


class Pruning(Proposer):
    """S-BitFit's and AdaLoRA's: parts of the largest configuration, by how much they did for it.

    It is trained as a trial is. The credit of an element is how much its movements lowered the
    loss, to first order, on the batch that comes after each movement. A smaller size keeps the
    ranks or rows of most credit together; configurations of all sizes are filled with what has
    most credit for its parameters. What the largest configuration does not have has none.

    Attributes:
        epochs: in trainings of a trial.

    References:
        Lawton et al., "Neural Architecture Search for Parameter-Efficient Fine-Tuning of Large
        Pre-trained Language Models", 2023, section 3 (scores of first order); Zhang et al.,
        "AdaLoRA", 2023, equation 8 (ranks by what their elements matter); Zenke et al., "Continual
        Learning Through Synaptic Intelligence", 2017, equation 3 (the sum over all movements).
    """

    epochs: float = Field(default=1.0, gt=0, le=1_000)

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
            credited = Credited(whole, settings.learning_rate)

            def step(descent: Descent) -> Tensor:
                loss = learned(lent, credited.member, descent)
                credited.settle()
                return loss

            yield from trained(lent, credited, step, settings, order, length, member)
            points = proposed(problem, credited.worth(lent), self.n_proposals)
        yield Proposals(member, points, length)


class Credited:
    """A configuration in training, and what each movement of its elements was good for.

    Args:
        member: its tensors.
        rate: where they have no learning rate of their own.

    Attributes:
        groups: what is trained, by learning rate.
    """

    def __init__(self, member: Member, rate: float) -> None:
        self.member, self.groups = member, member.by_rate(rate)
        self._weights = {
            shared_name(site, weight): site.weights[weight.name]
            for site in member.sites
            for weight in trained_weights(site)
        }
        self._before = {name: t.detach().clone() for name, t in self._weights.items()}
        self._credit = {name: torch.zeros_like(t) for name, t in self._before.items()}

    def settle(self) -> None:
        """Credits the last movement by the gradients in place."""
        for name, weight in self._weights.items():
            if weight.grad is not None:
                now = weight.detach()
                self._credit[name] -= weight.grad * (now - self._before[name])
                self._before[name] = now.clone()

    def state_dict(self) -> dict[str, Tensor]:
        """All of it by name, sharing its memory."""
        return {**self.member.state_dict(), **self._parts()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Puts back what `state_dict` gave."""
        parts = self._parts()
        self.member.load_state_dict({n: t for n, t in state.items() if n not in parts})
        for name, tensor in parts.items():
            tensor.copy_(state[name])

    def _parts(self) -> dict[str, Tensor]:
        kinds = {"before": self._before, "credit": self._credit}
        return {f"{kind} {n}": t for kind, of in kinds.items() for n, t in of.items()}

    def worth(self, lent: Lent) -> Worth:
        """The credit of a placement by layer; a tensor that layers share counts at the lowest."""
        return summed(lent, self.member, self._kept)

    def _kept(self, site: TrainedSite, counted: set[str]) -> float:
        """The credit of what a site of any size keeps; names that are counted count no more."""
        whole, by_size = 0.0, defaultdict[tuple[int, int], list[Tensor]](list)
        for weight in trained_weights(site):
            name = shared_name(site, weight)
            credit = self._credit.get(name)
            if credit is None or name in counted:
                continue
            counted.add(name)
            cut = _cut(weight.shape, credit.shape)
            if not cut:
                whole += float(credit.sum())
            elif len(cut) == 1:
                others = [axis for axis in range(credit.dim()) if axis != cut[0]]
                each = credit.sum(others) if others else credit
                by_size[weight.shape[cut[0]], len(each)].append(each)
        ranks = [torch.stack(of).sum(0).topk(n).values for (n, _), of in by_size.items()]
        return whole + sum(float(of.sum()) for of in ranks)


def _cut(small: Sequence[int], large: Sequence[int]) -> list[int]:
    """The axes along which something is cut."""
    return [axis for axis, (n, of) in enumerate(zip(small, large, strict=True)) if n < of]
