"""How far a configuration is trained."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

STATE_FILE = "peft.safetensors"
"""The trained tensors, in the folder of an order."""


@dataclass(frozen=True)
class Order:
    """The order that an engine gives to an evaluator.

    Attributes:
        rungs: epochs after which a report is due, ascending; the last ends the training and sets
            the length of the learning-rate schedule.
        seed: of initialisation, data order and dropout.
        folder: where the state is kept at each rung and, after the last, the trained tensors; None
            drops them.
        stamp: what the file of the tensors says of where they belong.
        tests: whether the test split is scored, once, after the last rung.
        reached: the rung from which it goes on; 0 where it begins.

    Raises:
        ValueError: no folder that holds the state.
    """

    rungs: tuple[float, ...]
    seed: int = 0
    folder: str | None = None
    stamp: str = ""
    tests: bool = False
    reached: float = 0.0

    def __post_init__(self) -> None:
        if self.folder is None and self.reached:
            raise ValueError("training that goes on needs a folder with its state")

    @property
    def ahead(self) -> tuple[float, ...]:
        """The rungs that are still to be reached."""
        return tuple(rung for rung in self.rungs if rung > self.reached)

    def kept_at(self, rung: float) -> Path:
        """The file of what is kept at a rung: the trained tensors at the last, else the state."""
        name = STATE_FILE if rung == self.rungs[-1] else f"rung-{rung:g}.pt"
        return Path(str(self.folder)) / name
