"""How long a trial was worked on."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any


class Clock:
    """Seconds since it was made, without pauses, beside those before.

    Args:
        reports: of the training that goes on, as they are recorded.
    """

    def __init__(self, reports: Iterable[Mapping[str, Any]] = ()) -> None:
        spent = ("train_seconds", "eval_seconds")
        before = sum(r["metrics"].get(name, 0.0) for r in reports for name in spent)
        self._before, self._since = before, time.monotonic()
        self._rests = False

    @property
    def seconds(self) -> float:
        """What has been counted so far."""
        return self._before + (0.0 if self._rests else time.monotonic() - self._since)

    def pause(self) -> None:
        """Counts nothing until `go_on`."""
        self._before, self._rests = self.seconds, True

    def go_on(self) -> None:
        """Counts again."""
        self._before, self._since, self._rests = self.seconds, time.monotonic(), False
