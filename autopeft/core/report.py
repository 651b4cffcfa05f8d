"""What an evaluator tells of the configurations that it trains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Report:
    """One line of a learning curve: what is known of a configuration after some training.

    Attributes:
        step: optimizer steps taken.
        fidelity: epochs trained, the unit of rungs.
        metrics: by name, such as `accuracy`, `validation_loss`, `train_loss`; times in seconds.
        member: which of the configurations that are trained together; in a study, its trial number.
    """

    step: int
    fidelity: float
    metrics: Mapping[str, float]
    member: int = 0


@dataclass(frozen=True)
class Failure:
    """The end of the training of one configuration that cannot go on.

    Attributes:
        member: as in `Report`.
        error: kind and text.
        where: the machine, to be added to the text; not part of what tells errors apart.
        environment: whether the machine failed, not the configuration, which deserves another go.
    """

    member: int
    error: str
    where: str = ""
    environment: bool = False
