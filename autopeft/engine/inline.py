"""The reference engine: one worker, in this process."""

from __future__ import annotations

from dataclasses import dataclass, field
from threading import Event

from autopeft.engine.dispatcher import PAUSE, Dispatcher
from autopeft.engine.engine import Engine, Watch, interrupts
from autopeft.engine.evaluator import Evaluator, MakeEvaluator
from autopeft.engine.room import Room
from autopeft.search.stopping import Stopper
from autopeft.study.study import Study

HERE = "here"
"""The only worker."""


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
            KeyboardInterrupt: Ctrl-C or SIGTERM, see `Engine.run`.
        """
        if not (study.n_left or study.queue_repeats()):
            return
        evaluator, dispatcher = make(), Dispatcher(study, stopper, self.room, watch)
        with interrupts() as asked:
            try:
                _work(evaluator, dispatcher, asked)
            finally:
                for member in dispatcher.pack(HERE):
                    evaluator.leave(member)


def _work(evaluator: Evaluator, dispatcher: Dispatcher, asked: Event) -> None:
    while not asked.is_set():
        for trial in dispatcher.refill(HERE):
            evaluator.join(trial.number, trial.config, trial.order)
        if dispatcher.is_over:
            return
        if dispatcher.pack(HERE):
            for member in dispatcher.record(HERE, evaluator.advance()):
                evaluator.leave(member)
        else:
            asked.wait(PAUSE)
    raise KeyboardInterrupt
