"""An evaluator that runs one-shot searches between trainings."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

from autopeft.core.config import PeftConfig
from autopeft.core.order import Order
from autopeft.core.report import Failure, Notice, Report
from autopeft.oneshot.proposer import Problem
from autopeft.oneshot.registry import make_proposer
from autopeft.train.shortage import failure_of, free
from autopeft.train.trainer import Trainer


@dataclass(frozen=True)
class _Joining:
    """A member that has joined and has not begun."""

    member: int
    config: PeftConfig
    order: Order


class Proposing:
    """Trains configurations, and runs the searches among them one at a time.

    A search has the backbone to itself: it begins when those in training have ended, and who joins
    after it waits for its end.

    Args:
        make: gives what trains configurations.
        problem: gives what the study searches for, once it is needed.
    """

    def __init__(self, make: Callable[[], Trainer], problem: Callable[[], Problem]) -> None:
        self._trainer, self._problem = make(), problem
        self._training: dict[int, Order] = {}
        self._line: list[_Joining] = []
        self._search: Generator[Notice] | None = None

    def join(self, member: int, config: PeftConfig, order: Order) -> None:
        """Takes in a configuration or a search."""
        self._line.append(_Joining(member, config, order))

    def leave(self, member: int) -> None:
        """Ends a member; one that is unknown or has ended is none."""
        if self._search is not None and self._line[0].member == member:
            self._search.close()
            self._search = None
        self._line = [each for each in self._line if each.member != member]
        self._training.pop(member, None)
        self._trainer.leave(member)

    def advance(self) -> Sequence[Notice]:
        """Trains or searches until some member reports, proposes or fails, and never raises."""
        while self._line and self._line[0].order.proposer is None:
            first = self._line.pop(0)
            self._training[first.member] = first.order
            self._trainer.join(first.member, first.config, first.order)
        if self._training:
            return self._trained()
        return [self._searched(self._line[0])] if self._line else []

    def _trained(self) -> Sequence[Notice]:
        notices = self._trainer.advance()
        for notice in notices:
            ends_at = self._training[notice.member].ends_at
            if isinstance(notice, Failure) or ends_at(notice.fidelity):
                del self._training[notice.member]
        return notices

    def _searched(self, joined: _Joining) -> Notice:
        """The next that a search tells; it is over with proposals or a failure."""
        order = joined.order
        try:
            if self._search is None:
                proposer = make_proposer(order.proposer or {})
                problem = self._problem()
                self._search = proposer.propose(problem, self._trainer, joined.member, order)
            notice = next(self._search)
        except Exception as error:  # whatever a search meets, others go on
            notice = failure_of(joined.member, error, joined.config, self._trainer.device)
            free()
        if not isinstance(notice, Report):
            self.leave(joined.member)
        return notice
