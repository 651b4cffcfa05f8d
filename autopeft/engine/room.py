"""What fits on one worker at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from autopeft.core.config import PeftConfig

MARGIN = 0.92
"""The part of a device that predictions may fill; the rest is for kernels and fragments."""

CONTEXT = 500 * 1000**2
"""Bytes that CUDA takes of a device for each process."""

MIXED = 1.07
"""What members of unlike methods take together, as a multiple of the sum of what each takes."""

SHARES = 20
"""A device is divided into so many equal shares."""


@dataclass(frozen=True)
class Need:
    """Bytes that a configuration takes at the worst moment of its training.

    Attributes:
        backbone: what members share.
        member: all else; of members it adds up.
    """

    backbone: int = 0
    member: int = 0


@dataclass(frozen=True)
class Room:
    """How much one worker takes.

    Attributes:
        members: configurations at most.
        memory: bytes of its device; None is without bound.
        share: the part of the device that is the worker's own.
        need: predicts what a configuration takes.
    """

    members: int = 1
    memory: float | None = None
    share: float = 1.0
    need: Callable[[PeftConfig], Need] = lambda _: Need()

    def holds(self, configs: Iterable[PeftConfig]) -> bool:
        """Whether configurations fit together; of one alone it is not asked."""
        configs = list(configs)
        if len(configs) > self.members:
            return False
        if self.memory is None or len(configs) < 2:
            return True
        needs = [self.need(config) for config in configs]
        bytes_ = max(need.backbone for need in needs) + MIXED * sum(need.member for need in needs)
        return bytes_ <= self.share * self.memory * MARGIN - CONTEXT

    def share_for(self, config: PeftConfig) -> float:
        """The part of the device that a configuration asks for by itself.

        A multiple of 1 / `SHARES`; more than a half is the whole.
        """
        if self.memory is None:
            return 1.0
        need = self.need(config)
        part = ((need.backbone + need.member) / MARGIN + CONTEXT) / self.memory
        return math.ceil(part * SHARES) / SHARES if part <= 0.5 else 1.0
