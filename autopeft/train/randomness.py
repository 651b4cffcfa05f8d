"""States of torch's global generators that are put in place for a while."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor


class Randomness:
    """The random numbers of one training, whatever else runs in between."""

    def __init__(self, seed: int) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self._state = _current()

    @contextmanager
    def resumed(self) -> Iterator[None]:
        """Inside the block the generators go on from where the last block left them."""
        with torch.random.fork_rng():
            _put(self._state)
            yield
            self._state = _current()

    def state_dict(self) -> dict[str, Tensor]:
        """The state of each generator, as torch has it, by device."""
        return {str(index): state for index, state in enumerate(self._state)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Goes on from where another training was."""
        self._state = tuple(state[str(index)] for index in range(len(state)))


def _current() -> tuple[Tensor, ...]:
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return torch.get_rng_state(), *cuda


def _put(state: tuple[Tensor, ...]) -> None:
    cpu, *cuda = state
    torch.set_rng_state(cpu)
    for index, each in enumerate(cuda[: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(each, index)
