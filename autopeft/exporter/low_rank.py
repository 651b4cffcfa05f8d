"""What LoRA and its kin become in formats that know LoRA alone."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from autopeft.method.dora import DoraMethod
from autopeft.method.hook import TrainedSite
from autopeft.method.lora import LoraMethod
from autopeft.method.moslora import MosLoraMethod


@dataclass(frozen=True)
class LowRank:
    """The change scaling * B A of one linear: A (r, inputs), B (outputs, r)."""

    a: Tensor
    b: Tensor
    scaling: float = 1.0

    @property
    def rank(self) -> int:
        """The number of rows of A."""
        return self.a.shape[0]

    @property
    def alpha(self) -> float:
        """What divided by the rank is the scaling."""
        return self.scaling * self.rank

    def padded(self, rank: int) -> LowRank:
        """The same change with that rank and a scaling of 1."""
        missing = rank - self.rank
        b = F.pad(self.b * self.scaling, (0, missing))
        return LowRank(F.pad(self.a, (0, 0, 0, missing)), b)

    def plus(self, other: LowRank) -> LowRank:
        """The sum, whose rank is the sum of ranks and whose scaling is 1."""
        b = torch.cat([self.b * self.scaling, other.b * other.scaling], dim=1)
        return LowRank(torch.cat([self.a, other.a]), b)


def low_rank(site: TrainedSite) -> LowRank:
    """The change of one site: a mixer becomes part of A, what is taken off one of more rank."""
    method, tensors = site.placed.method, site.tensors
    assert isinstance(method, LoraMethod | MosLoraMethod | DoraMethod)
    a, b = tensors["A"].detach(), tensors["B"].detach()
    if "M" in tensors:
        a = tensors["M"].detach() @ a
    if "A0" in tensors:
        a, b = torch.cat([a, tensors["A0"]]), torch.cat([b, -tensors["B0"]], dim=1)
    return LowRank(a, b, method.scaling)


def differ(changes: Collection[LowRank]) -> bool:
    """Whether they have several ranks or scalings."""
    return len({(change.rank, change.alpha) for change in changes}) > 1
