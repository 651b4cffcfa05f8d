"""What runs the trials of a study."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Sequence
from typing import Protocol

from autopeft.core.budget import Budget
from autopeft.core.config import PeftConfig
from autopeft.core.report import Report
from autopeft.search.stopping import Decision, Stopper
from autopeft.study.study import Study, Ticket


class Evaluator(Protocol):
    """Trains configurations and reports at every rung; closing the generator ends the training."""

    def __call__(
        self, configs: Sequence[PeftConfig], budget: Budget
    ) -> Generator[Report, None, None]: ...


MakeEvaluator = Callable[[], Evaluator]
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
        """


def judge(study: Study, stopper: Stopper, ticket: Ticket, report: Report) -> Decision:
    """Records a report and decides whether the trial goes on."""
    curve = study.report(ticket, report)
    return stopper.decide(study.curves(), curve)


def described(error: BaseException) -> str:
    """An error as the record keeps it: its kind and what it says."""
    return f"{type(error).__name__}: {error}"
