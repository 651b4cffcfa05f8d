"""An evaluator and the trials that it trains."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from autopeft.core.report import Failure, Report
from autopeft.engine.engine import Evaluator, MakeEvaluator, described
from autopeft.study.trial import Trial


class Crew:
    """The members of one evaluator, which is built with the first; what it raises is a failure.

    Args:
        make: builds the evaluator.
        place: added to errors, such as the name of the machine.
    """

    def __init__(self, make: MakeEvaluator, place: str = "") -> None:
        self._make, self._place = make, place
        self._evaluator: Evaluator | None = None
        self._members: list[int] = []
        self._refused: list[Failure] = []

    def join(self, trial: Trial) -> None:
        """Takes in a trial, which starts at the coming `advance`."""
        self._members.append(trial.number)
        try:
            self._evaluator = self._evaluator or self._make()
            self._evaluator.join(trial.number, trial.config, trial.order)
        except Exception as error:
            self._refused.append(Failure(trial.number, described(error), self._place))

    def leave(self, member: int) -> None:
        """Ends a member, also one that has ended already."""
        self._members = [other for other in self._members if other != member]
        if self._evaluator is not None:
            self._evaluator.leave(member)

    def disband(self) -> None:
        """Ends all members."""
        for member in self._members:
            self.leave(member)

    def advance(self) -> Sequence[Report | Failure]:
        """Trains until some member reports or fails; not for a crew without members."""
        refused, self._refused = self._refused, []
        if refused or self._evaluator is None:
            return refused
        try:
            return self._evaluator.advance() or self._failed("the evaluator reports nothing")
        except Exception as error:
            return self._failed(described(error))

    def _failed(self, error: str) -> list[Failure]:
        return failures(self._members, error, self._place)


def failures(members: Iterable[int], error: str, where: str = "") -> list[Failure]:
    """One error as the failure of all members; it tells each who else was there.

    Any one of them may be the cause, so the texts differ: they are not failures of one kind.
    """
    numbers = sorted(members)
    others = {n: ", ".join(str(m) for m in numbers if m != n) for n in numbers}
    texts = {n: f"{error} (beside {others[n]})" if others[n] else error for n in numbers}
    return [Failure(n, texts[n], where) for n in numbers]
