"""How far a configuration is trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Order:
    """The order that an engine gives to an evaluator.

    Attributes:
        rungs: epochs after which a report is due, ascending; the last ends the training and sets
            the length of the learning-rate schedule.
        seed: of initialisation, data order and dropout.
        folder: where the state of training is saved at every rung and the trained tensors after
            the last, or None to drop them.
        stamp: what the file of the tensors says of where they belong.
        tests: whether the test split is scored, once, after the last rung.
        reached: the last rung whose report is known, from which training goes on; 0 where it
            begins.
        proposer: of a one-shot search, its `type` and options; None of a training.
    """

    rungs: tuple[float, ...]
    seed: int = 0
    folder: str | None = None
    stamp: str = ""
    tests: bool = False
    reached: float = 0.0
    proposer: Mapping[str, Any] | None = None

    @property
    def ahead(self) -> tuple[float, ...]:
        """The rungs that are still to be reached; a one-shot search has rungs of its own."""
        return tuple(r for r in self.rungs if r > self.reached or self.proposer is not None)

    def ends_at(self, rung: float) -> bool:
        """Whether a training ends with the report of this rung; a search does with proposals."""
        return self.proposer is None and rung >= self.rungs[-1]
