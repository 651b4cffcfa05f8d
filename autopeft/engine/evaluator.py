"""What trains the trials of a worker."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from autopeft.core.config import PeftConfig
from autopeft.core.order import Order
from autopeft.core.report import Notice


class Evaluator(Protocol):
    """Trains configurations side by side, its members, and reports at every rung of each.

    A member ends by itself after the report of its last rung, or with its failure. Nothing here
    raises: what goes wrong is the failure of those members whom it concerns.
    """

    def join(self, member: int, config: PeftConfig, order: Order) -> None:
        """Takes in a configuration, which starts at the coming `advance`."""

    def leave(self, member: int) -> None:
        """Ends a member; one that is unknown or has ended is none."""

    def advance(self) -> Sequence[Notice]:
        """Trains until some member reports or fails; never empty while there are members."""


MakeEvaluator = Callable[[], Evaluator]
