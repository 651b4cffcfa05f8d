"""How far a configuration is trained."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path


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
        reached: the rung at which it has paused and from which it goes on; 0 where it begins.

    Raises:
        ValueError: no folder for the state.
    """

    rungs: tuple[float, ...]
    seed: int = 0
    folder: str | None = None
    stamp: str = ""
    pauses: bool = False
    reached: float = 0.0

    def __post_init__(self) -> None:
        if self.folder is None and (self.pauses or self.reached):
            raise ValueError("training that pauses needs a folder for its state")

    @property
    def ahead(self) -> tuple[float, ...]:
        """The rungs that are still to be reached."""
        return tuple(rung for rung in self.rungs if rung > self.reached)


def checkpoint(folder: str) -> Path:
    """Where the state of a training that pauses lies in its folder."""
    return Path(folder) / "checkpoint.pt"


def unfinished(path: Path) -> Path:
    """Where a file is written before it takes its place."""
    return path.with_name(f".{path.name}")


def discard(folder: str) -> None:
    """Deletes the state of a training and what was not written to the end; an empty folder too."""
    state = checkpoint(folder)
    with contextlib.suppress(OSError):
        for path in (state, unfinished(state)):
            path.unlink(missing_ok=True)
        state.parent.rmdir()
