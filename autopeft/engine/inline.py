"""The reference engine: one worker, in this process."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from autopeft.engine.backlog import PAUSE, Backlog
from autopeft.engine.crew import Crew
from autopeft.engine.engine import Engine, MakeEvaluator, Watch
from autopeft.engine.room import Room
from autopeft.engine.roster import Roster
from autopeft.search.stopping import Stopper
from autopeft.study.study import Study


@dataclass(frozen=True)
class Inline(Engine):
    """Runs trials in this process.

    Attributes:
        room: how many at a time.
    """

    room: Room = field(default_factory=Room)

    def run(
        self, study: Study, make: MakeEvaluator, stopper: Stopper, watch: Watch = lambda _: None
    ) -> None:
        """Runs the study to its end.

        Raises:
            StudyError: see `Study.ask`; also what building the evaluator raises.
        """
        if not study.n_left:
            return
        evaluator = make()
        crew = Crew(lambda: evaluator)
        backlog = Backlog(study, stopper, watch)
        roster = Roster(backlog, self.room)
        try:
            while True:
                for trial in roster.refill():
                    crew.join(trial)
                if roster.members:
                    for member in roster.record(crew.advance()):
                        crew.leave(member)
                elif backlog.is_over:
                    return
                else:
                    time.sleep(PAUSE)
        finally:
            crew.disband()
