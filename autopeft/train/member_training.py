"""One configuration in training, and what is kept of it on disk."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from autopeft.core.order import Order
from autopeft.method.member import Member
from autopeft.train.descent import Descent
from autopeft.train.randomness import Randomness

STATE_FILE, CHECKPOINT = "peft.safetensors", "checkpoint.pt"
"""In the folder of an order: the trained tensors, and the state of a training that pauses."""

STAMP = "trial"
"""The key of the file's metadata that holds the stamp of the order."""


@dataclass(frozen=True, eq=False)
class MemberTraining:
    """One configuration in training.

    Attributes:
        number: its name to whoever ordered the training.
        tensors: what is trained.
        descent: their optimisation.
        randomness: its dropout, as long as it is the first of its pack.
        order: the order.
    """

    number: int
    tensors: Member
    descent: Descent
    randomness: Randomness
    order: Order

    def keep(self) -> None:
        """Writes what the order asks for at a rung: the tensors at the last, else the state.

        Raises:
            OSError: it cannot be written.
            RuntimeError: a tensor is not finite.
        """
        tensors = self.tensors.state_dict()
        check_finite(tensors)
        if self.order.folder is None:
            return
        folder = Path(self.order.folder)
        if not self.descent.rungs:
            save_tensors(tensors, folder, self.order.stamp)
            (folder / CHECKPOINT).unlink(missing_ok=True)
        elif self.order.pauses:
            state = {
                "tensors": tensors,
                "descent": self.descent.state_dict(),
                "randomness": self.randomness.state,
            }
            with _whole(folder / CHECKPOINT) as path:
                torch.save(state, path)

    def go_on(self) -> None:
        """Puts back the state that was kept at the rung from which the order goes on.

        Raises:
            OSError: it is not there, or cannot be read.
        """
        path = Path(str(self.order.folder)) / CHECKPOINT
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except (OSError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
            reason = f"no state to go on from, in a folder that all workers share: {error!r}"
            raise OSError(f"{path}: {reason}") from error
        self.tensors.load_state_dict(state["tensors"])
        self.descent.load_state_dict(state["descent"])
        self.randomness.state = state["randomness"]


def check_finite(tensors: Mapping[str, Tensor]) -> None:
    """Raises RuntimeError for a tensor that is not finite."""
    broken = [name for name, tensor in tensors.items() if not tensor.isfinite().all()]
    if broken:
        some = f"{len(broken)} of {len(tensors)} tensors, first {broken[0]}"
        raise RuntimeError(f"training diverged: not finite are {some}")


def save_tensors(tensors: Mapping[str, Tensor], folder: Path, stamp: str) -> None:
    """Writes trained tensors into the folder of an order, with its stamp.

    Raises:
        OSError: it cannot be written.
    """
    with _whole(folder / STATE_FILE) as path:
        content = {name: t.cpu().contiguous() for name, t in tensors.items()}
        save_file(content, path, metadata={STAMP: stamp})


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """Where to write what is at `path` after the block, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}")
    try:
        yield part
        part.replace(path)
    except (RuntimeError, SafetensorError) as error:  # also where the disk is full
        raise OSError(f"{path}: {error}") from error
    finally:
        part.unlink(missing_ok=True)
