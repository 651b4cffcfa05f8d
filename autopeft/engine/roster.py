"""The trials that one worker trains."""

from __future__ import annotations

from collections.abc import Iterable

from autopeft.core.report import Failure, Report
from autopeft.engine.backlog import Backlog
from autopeft.engine.crew import failures
from autopeft.engine.room import Room
from autopeft.study.trial import Trial


class Roster:
    """Takes trials from a backlog while there is room, and gives them back.

    A trial that does not fit waits, and no other is taken meanwhile; one alone always fits.

    Args:
        backlog: shared by the rosters of a run.
        room: of the worker.
    """

    def __init__(self, backlog: Backlog, room: Room) -> None:
        self.backlog, self.room = backlog, room
        self.members: dict[int, Trial] = {}

    def refill(self) -> list[Trial]:
        """The trials that join now.

        Raises:
            StudyError: see `Study.ask`.
        """
        joining = []
        while len(self.members) < self.room.members and self._fits(self.backlog.next()):
            trial = self.backlog.take()
            self.members[trial.number] = trial
            joining.append(trial)
        return joining

    def record(self, events: Iterable[Report | Failure]) -> list[int]:
        """Records what members report; those that leave: done, stopped, or to pause."""
        leaving = []
        for event in events:
            trial = self.members.get(event.member)
            if trial is not None and not self.backlog.record(trial, event):
                del self.members[event.member]
                leaving.append(event.member)
        return leaving

    def fail(self, error: str) -> None:
        """Records the failure of all members."""
        self.record(failures(self.members, error))

    def _fits(self, trial: Trial | None) -> bool:
        if trial is None:
            return False
        together = [member.config for member in (*self.members.values(), trial)]
        return len(together) == 1 or self.room.holds(together)
