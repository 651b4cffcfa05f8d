"""States of torch's global generators that are put in place for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


class Randomness:
    """The random numbers of one training, whatever else runs in between.

    Attributes:
        state: of the generators, to go on from; only tensors in tuples and lists.
    """

    def __init__(self, seed: int) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.state = _current()

    @contextmanager
    def resumed(self) -> Iterator[None]:
        """Inside the block the generators go on from where the last block left them."""
        with torch.random.fork_rng():
            _put(self.state)
            yield
            self.state = _current()


def _current() -> Any:
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return torch.get_rng_state(), cuda


def _put(state: Any) -> None:
    cpu, cuda = state
    torch.set_rng_state(cpu)
    for index, each in enumerate(cuda[: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(each, index)
