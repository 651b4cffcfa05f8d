"""One line of a trial's learning curve."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Report:
    """What is known of a configuration after some training.

    Attributes:
        step: optimizer steps taken.
        fidelity: epochs trained, the unit of rungs.
        metrics: by name, such as `accuracy`, `validation_loss`, `train_loss`; times in seconds.
        member: index of the configuration within the list that is trained together.
    """

    step: int
    fidelity: float
    metrics: Mapping[str, float]
    member: int = 0
