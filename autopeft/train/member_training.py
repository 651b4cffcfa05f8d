"""One configuration in training, and what is kept of it on disk."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from stat import S_IMODE
from typing import Protocol

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from autopeft.core.errors import DivergenceError
from autopeft.core.order import Order
from autopeft.method.member import Member
from autopeft.train.descent import Descent
from autopeft.train.randomness import Randomness

_log = logging.getLogger("autopeft")

STATE_FILE, CHECKPOINT = "peft.safetensors", "checkpoint.safetensors"
"""In the folder of an order: the trained tensors, and before those the state of the training."""

STAMP, RUNG = "trial", "rung"
"""Keys of a file's metadata: the stamp of the order, and the epochs of a state."""


class Stateful(Protocol):
    """Tensors that can be put aside."""

    def state_dict(self) -> dict[str, Tensor]:
        """All of them by name."""

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Puts back what `state_dict` gave."""


@dataclass(frozen=True, eq=False)
class Training:
    """Tensors in training.

    Attributes:
        tensors: what is trained.
        descent: their optimisation.
        randomness: the dropout.
        order: the order.
    """

    tensors: Stateful
    descent: Descent
    randomness: Randomness
    order: Order

    def keep(self, rung: float) -> None:
        """Writes the tensors at the last rung, before it the state that training goes on from.

        Raises:
            OSError: it cannot be written.
            DivergenceError: a tensor is not finite.
        """
        tensors = self.tensors.state_dict()
        check_finite(tensors)
        if self.order.folder is None:
            return
        folder = Path(self.order.folder)
        if not self.descent.rungs:
            save_tensors(tensors, folder, self.order.stamp)
            (folder / CHECKPOINT).unlink(missing_ok=True)
        else:
            descent, randomness = self.descent.state_dict(), self.randomness.state_dict()
            parts = {"tensors": tensors, "descent": descent, "randomness": randomness}
            state = {f"{part}.{name}": t for part, of in parts.items() for name, t in of.items()}
            _save(state, folder / CHECKPOINT, self._about(rung))

    def go_on(self) -> None:
        """Puts back the state that was kept at the rung from which the order goes on.

        Without it the training begins anew, and is silent up to the rungs ahead.
        """
        path = Path(str(self.order.folder)) / CHECKPOINT
        try:
            with safe_open(path, framework="pt") as file:
                if file.metadata() != self._about(self.order.reached):
                    raise OSError("is of another training or rung")
            state = load_file(path)
        except (OSError, SafetensorError) as error:
            _log.warning("training begins anew, without its state: %s: %s", path, error)
            return
        self.tensors.load_state_dict(_part(state, "tensors"))
        self.descent.load_state_dict(_part(state, "descent"))
        self.randomness.load_state_dict(_part(state, "randomness"))

    def _about(self, rung: float) -> dict[str, str]:
        return {STAMP: self.order.stamp, RUNG: repr(rung)}


@dataclass(frozen=True, eq=False)
class MemberTraining(Training):
    """One configuration in training, whose dropout counts while it is the first of its pack.

    Attributes:
        number: its name to whoever ordered the training.
    """

    tensors: Member
    number: int


def check_finite(tensors: Mapping[str, Tensor]) -> None:
    """Raises DivergenceError for a tensor that is not finite."""
    broken = [name for name, tensor in tensors.items() if not tensor.isfinite().all()]
    if broken:
        some = f"{len(broken)} of {len(tensors)} tensors, first {broken[0]}"
        raise DivergenceError(f"not finite are {some}")


def save_tensors(tensors: Mapping[str, Tensor], folder: Path, stamp: str) -> None:
    """Writes trained tensors into the folder of an order, with its stamp.

    Raises:
        OSError: it cannot be written.
    """
    _save(tensors, folder / STATE_FILE, {STAMP: stamp})


def _save(tensors: Mapping[str, Tensor], file: Path, about: dict[str, str]) -> None:
    with _whole(file) as path:
        content = {name: t.cpu().contiguous() for name, t in tensors.items()}
        save_file(content, path, metadata=about)


def _part(state: Mapping[str, Tensor], part: str) -> dict[str, Tensor]:
    """The tensors of a part of a state by their names in it."""
    names = (name for name in state if name.startswith(f"{part}."))
    return {name.removeprefix(f"{part}."): state[name] for name in names}


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """Where to write what is at `path` after the block, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}")
    try:
        part.touch()
        mode = part.stat().st_mode
        yield part
        part.chmod(S_IMODE(mode))  # safetensors gives all to the owner
        part.replace(path)
    except (RuntimeError, SafetensorError) as error:  # also where the disk is full
        raise OSError(f"{path}: {error}") from error
    finally:
        part.unlink(missing_ok=True)
