"""The study on the side of whoever drives several workers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from autopeft.core.report import Failure, Report
from autopeft.engine.backlog import PAUSE, Backlog
from autopeft.engine.engine import Watch
from autopeft.engine.room import Room
from autopeft.engine.roster import Roster
from autopeft.search.stopping import Stopper
from autopeft.study.study import Study
from autopeft.study.trial import Trial


@dataclass(frozen=True)
class Change:
    """What a worker is told about its members before it trains on.

    Attributes:
        leaving: numbers of trials that end.
        joining: trials that start.
    """

    leaving: tuple[int, ...] = ()
    joining: tuple[Trial, ...] = ()


Tell = Callable[[str, Change], None]


class Packs:
    """A pack of trials for each worker, under the identity that its driver gives it.

    What goes wrong here ends the run: no pack is founded any more, every pack is to stop, and
    `error` is what the engine raises.

    Args:
        study: entered by the caller.
        stopper: decides after every report but the last.
        room: of a worker.
        watch: called after every change.
        tell: brings a change to a worker, before this one trains on.
    """

    def __init__(
        self, study: Study, stopper: Stopper, room: Room, watch: Watch, tell: Tell
    ) -> None:
        self.room, self.tell = room, tell
        self.error: BaseException | None = None
        self._backlog = Backlog(study, stopper, watch)
        self._rosters: dict[str, Roster] = {}
        self._look_again = 0.0

    @property
    def are_over(self) -> bool:
        """Whether no pack will be founded any more."""
        return self.error is not None or self._backlog.is_over

    def found(self, identity: str) -> Sequence[Trial]:
        """The first members of a pack; none where there is nothing to train now."""
        if self.error is not None or time.monotonic() < self._look_again:
            return []
        with self._kept():
            roster = Roster(self._backlog, self.room)
            founding = roster.refill()
            if founding:
                self._rosters[identity] = roster
            else:
                self._look_again = time.monotonic() + PAUSE
            return founding
        return []

    def record(self, identity: str, events: Iterable[Report | Failure]) -> bool:
        """Records what the members of a pack report; whether any is trained on."""
        self._look_again = 0.0
        roster = self._rosters.get(identity)
        if roster is None or self.error is not None:
            return False
        with self._kept():
            change = Change(tuple(roster.record(events)), tuple(self._joining(roster)))
            if not roster.members:
                del self._rosters[identity]
            elif change != Change():
                self.tell(identity, change)
            return bool(roster.members)
        return False

    def end(self, identity: str) -> None:
        """Records the end of a worker: of what members it still has, that it died."""
        self._look_again = 0.0
        roster = self._rosters.pop(identity, None)
        if roster is None or self.error is not None:
            return
        with self._kept():
            roster.fail("the worker process died")

    def _joining(self, roster: Roster) -> list[Trial]:
        """Who joins a pack; where packs are of one, the next trial founds the next pack."""
        return roster.refill() if self.room.members > 1 else []

    @contextmanager
    def _kept(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self.error = self.error or error

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: a run continues from the study's record, not from files of its driver."""
        return {}

    def __deepcopy__(self, memo: Any) -> Packs:
        return self
