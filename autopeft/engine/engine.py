"""What runs the trials of a study."""

from __future__ import annotations

import logging
import signal
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from autopeft.engine.evaluator import MakeEvaluator
from autopeft.search.stopping import Stopper
from autopeft.study.study import Study

_log = logging.getLogger("autopeft")

Watch = Callable[[Study], None]


class Engine(ABC):
    """Runs trials until the study has enough; failures of trials are recorded, not raised."""

    @abstractmethod
    def run(
        self, study: Study, make: MakeEvaluator, stopper: Stopper, watch: Watch = lambda _: None
    ) -> None:
        """Runs the study to its end.

        Args:
            study: entered by the caller.
            make: builds the evaluator of one worker; can be sent to another process.
            stopper: decides after every report but the last.
            watch: called after every change.

        Raises:
            StudyError: see `Study.ask`.
            KeyboardInterrupt: Ctrl-C or SIGTERM, once the trials in training have reached a rung; a
                second one at once.
        """


@contextmanager
def interrupts() -> Iterator[threading.Event]:
    """Sets the event at the first Ctrl-C or SIGTERM; a second one does what it always does.

    Only the main thread can listen.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def put_back() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def handle(number: int, frame: Any) -> None:
        put_back()
        asked.set()
        _log.warning("stops at the next rung; a second interrupt stops at once")

    for number in before:
        signal.signal(number, handle)
    try:
        yield asked
    finally:
        put_back()
