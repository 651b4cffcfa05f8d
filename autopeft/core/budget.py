"""How far a configuration is trained."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Budget:
    """The order that an engine gives to an evaluator.

    Attributes:
        rungs: epochs after which a report is due, ascending; the last ends the training and sets
            the length of the learning-rate schedule.
        seed: of initialisation, data order and dropout.
        folder: where the trained tensors are saved after the last rung, or None to drop them.
    """

    rungs: tuple[float, ...]
    seed: int = 0
    folder: str | None = None
