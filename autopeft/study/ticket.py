"""What a study hands out."""

from __future__ import annotations

from dataclasses import dataclass

from autopeft.core.budget import Budget
from autopeft.core.config import PeftConfig


@dataclass(frozen=True)
class Ticket:
    """A trial that is to be run.

    Attributes:
        number: of the trial.
        config: what to train.
        budget: how far, and where the tensors go.
        protected: whether the trial is never stopped, as baselines are not.
    """

    number: int
    config: PeftConfig
    budget: Budget
    protected: bool = False
