"""The trials of one worker: who trains, and who waits for room."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from autopeft.core.report import Failure, Report
from autopeft.engine.crew import failures
from autopeft.engine.engine import Watch, described
from autopeft.engine.room import Room
from autopeft.search.stopping import Stopper
from autopeft.study.study import Study, Ticket


class Roster:
    """Takes trials from a study while there is room, and records what becomes of each.

    A trial that does not fit waits, and no other is asked for meanwhile; one alone always fits.

    Args:
        study: entered by the caller.
        stopper: decides after every report but the last.
        room: of the worker.
        watch: called after every change.
        waiting: trials that wait for room on any worker; shared by the rosters of a run.
    """

    def __init__(
        self, study: Study, stopper: Stopper, room: Room, watch: Watch, waiting: deque[Ticket]
    ) -> None:
        self.study, self.stopper, self.room, self.watch = study, stopper, room, watch
        self.waiting = waiting
        self.members: dict[int, Ticket] = {}

    def refill(self) -> list[Ticket]:
        """The trials that join now.

        Raises:
            StudyError: see `Study.ask`.
        """
        joining = []
        while len(self.members) < self.room.members and (ticket := self._next()) is not None:
            self.members[ticket.number] = ticket
            joining.append(ticket)
        return joining

    def record(self, events: Iterable[Report | Failure]) -> list[int]:
        """Records what members report; those that are done, by themselves or stopped."""
        done = []
        for event in events:
            ticket = self.members.get(event.member)
            if ticket is None or self._goes_on(ticket, event):
                continue
            del self.members[event.member]
            done.append(event.member)
            self.watch(self.study)
        return done

    def fail(self, error: str) -> None:
        """Records the failure of all members."""
        self.record(failures(self.members, error))

    def _next(self) -> Ticket | None:
        if not self.waiting:
            ticket = self.study.ask()
            if ticket is None:
                return None
            self.waiting.append(ticket)
            self.watch(self.study)
        together = [ticket.config for ticket in (*self.members.values(), self.waiting[0])]
        fits = len(together) == 1 or self.room.holds(together)
        return self.waiting.popleft() if fits else None

    def _goes_on(self, ticket: Ticket, event: Report | Failure) -> bool:
        """Records an event; whether its trial is still trained."""
        if isinstance(event, Failure):
            self.study.fail(ticket, event.error, event.where)
            return False
        try:
            curve = self.study.report(ticket, event)
            if event.fidelity >= ticket.budget.rungs[-1]:
                self.study.finish(ticket)
                return False
            decision = self.stopper.decide(self.study.curves(), curve)
        except Exception as error:
            self.study.fail(ticket, described(error))
            return False
        if not decision.goes_on:
            self.study.stop(ticket, decision.reason)
        return decision.goes_on
