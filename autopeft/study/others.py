"""What other processes that work on the same study are running."""

from __future__ import annotations

from collections.abc import Container, Sequence

import optuna
from optuna.trial import FrozenTrial, TrialState

from autopeft.core import host
from autopeft.core.document import Document
from autopeft.core.report import Failure, Shortage
from autopeft.study.heart import Heart, has_kernel_killed
from autopeft.study.ledger import OWNER
from autopeft.study.trouble import N_DEATHS, N_KILLS

LOOK_AGAIN = 1.0
"""Seconds between two looks at whether a process elsewhere lives."""


class Others:
    """The trials in training that this process does not train.

    Args:
        record: of the study.
        heart: of this process.
        started: the numbers of its trials, as they are at each question.
    """

    def __init__(self, record: optuna.Study, heart: Heart, started: Container[int]) -> None:
        self._record, self._heart, self._started = record, heart, started

    def abandoned(self) -> list[FrozenTrial]:
        """Those whose processes have died."""
        return [trial for trial in self._trials() if not self._is_alive(trial)]

    def are_in_doubt(self) -> bool:
        """Whether it is still to be seen if some process elsewhere lives."""
        owners = (trial.user_attrs.get(OWNER) for trial in self._trials())
        return any(owner is not None and self._heart.is_in_doubt(owner) for owner in owners)

    def end_of(
        self, trial: FrozenTrial, deaths: int, abandoned: Sequence[FrozenTrial]
    ) -> Failure | None:
        """How a trial ends whose processes have died so often in a row; None where it goes on.

        Args:
            trial: of a dead process.
            deaths: so often.
            abandoned: all trials of dead processes.
        """
        owner, config = trial.user_attrs.get(OWNER, {}), Document(trial.user_attrs).config
        is_alone = sum(owner == other.user_attrs.get(OWNER) for other in abandoned) == 1
        if config and is_alone and deaths >= N_KILLS and has_kernel_killed(owner):
            shortage = Shortage.of(config, "cpu", host.memory())
            told = "the kernel killed its process, the machine is out of memory"
            return Failure(trial.number, told, shortage=shortage)
        if deaths >= N_DEATHS:
            return Failure(trial.number, f"its process died {deaths} times")
        return None

    def _trials(self) -> list[FrozenTrial]:
        running = self._record.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        return [trial for trial in running if trial.number not in self._started]

    def _is_alive(self, trial: FrozenTrial) -> bool:
        """Whether its process works on a trial; of one that has no owner nothing is known."""
        owner = trial.user_attrs.get(OWNER)
        return not self._heart.is_alone() if owner is None else self._heart.is_alive(owner)
