"""How long a trial was worked on."""

from __future__ import annotations

import time


class Clock:
    """Seconds since it was made, without pauses."""

    def __init__(self) -> None:
        self._before, self._since = 0.0, time.monotonic()
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
