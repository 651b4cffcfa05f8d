"""Counts what a run asks of the storage and times its decisions."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import sqlalchemy
from sqlalchemy import event

N_TIMED = 50
"""Decisions over which a time is averaged."""


@dataclass
class Meter:
    """Processor seconds of every decision by kind, and SQL statements and transactions."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    statements: int = 0
    commits: int = 0

    @contextmanager
    def timed(self, kind: str) -> Iterator[None]:
        """Adds the processor time of the block to its kind."""
        start = time.process_time()
        yield
        self.seconds.setdefault(kind, []).append(time.process_time() - start)

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Counts what every SQLAlchemy engine of this process executes inside."""

        def executed(*_: Any) -> None:
            self.statements += 1

        def committed(*_: Any) -> None:
            self.commits += 1

        listeners = {"before_cursor_execute": executed, "commit": committed}
        for name, listener in listeners.items():
            event.listen(sqlalchemy.Engine, name, listener)
        try:
            yield
        finally:
            for name, listener in listeners.items():
                event.remove(sqlalchemy.Engine, name, listener)

    def at(self, kind: str, counts: tuple[int, ...]) -> Mapping[str, float]:
        """Mean seconds of the decisions up to the given ones."""
        taken = self.seconds.get(kind, [])
        reached = [n for n in counts if n <= len(taken)]
        return {str(n): float(np.mean(taken[max(0, n - N_TIMED) : n])) for n in reached}

    @property
    def n_decisions(self) -> int:
        """Of all kinds."""
        return sum(map(len, self.seconds.values()))

    @property
    def total(self) -> float:
        """Processor seconds of all decisions."""
        return sum(map(sum, self.seconds.values()))
