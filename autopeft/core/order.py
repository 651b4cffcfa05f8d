"""How far a configuration is trained."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Order:
    """The order that an engine gives to an evaluator.

    Attributes:
        rungs: epochs after which a report is due, ascending; the last ends the training and sets
            the length of the learning-rate schedule.
        seed: of initialisation, data order and dropout.
        folder: where the trained tensors are saved after the last rung, or None to drop them.
        stamp: what the file of the tensors says of where they belong.
        pauses: whether training may pause at a rung, so that its state is saved there in `folder`.
        tests: whether the test split is scored, once, after the last rung.
        reached: the rung at which it has paused and from which it goes on; 0 where it begins.

    Raises:
        ValueError: no folder for the state.
    """

    rungs: tuple[float, ...]
    seed: int = 0
    folder: str | None = None
    stamp: str = ""
    pauses: bool = False
    tests: bool = False
    reached: float = 0.0

    def __post_init__(self) -> None:
        if self.folder is None and (self.pauses or self.reached):
            raise ValueError("training that pauses needs a folder for its state")

    @property
    def ahead(self) -> tuple[float, ...]:
        """The rungs that are still to be reached."""
        return tuple(rung for rung in self.rungs if rung > self.reached)
