"""When the failures of a run mean that it is to end."""

from __future__ import annotations

from autopeft.core.errors import StudyError
from autopeft.core.report import Failure

N_ALIKE = 5
"""First trials of a run that all fail with one error, after which the run gives up."""

N_ATTEMPTS = 3
"""Trainings in a row that the machine breaks off, after which a run or a trial is given up."""

N_DEATHS = 5
"""Deaths of its process in a row, none at a later rung, after which a trial is given up."""


N_KILLS = 2
"""Deaths of its process for want of memory in a row, after which a trial counts as too large."""


class Trouble:
    """The failures of one run."""

    def __init__(self) -> None:
        self._first: dict[int, tuple[str, str]] | None = {}
        self._n_lost = 0
        self._broken = ""

    def failed(self, number: int, error: str, where: str = "") -> None:
        """A trial has failed; `where` is no part of what tells errors apart."""
        if self._first is not None:
            self._first[number] = error, where

    def lost(self, attempts: int, failure: Failure) -> bool:
        """Whether a trial deserves another training, the machine having broken off so many.

        It does also where nothing else was finished meanwhile, or a worker can train none: then
        the run ends at `check`.
        """
        if failure.fault not in ("machine", "worker"):
            return False
        if failure.shortage:
            return attempts < N_KILLS
        error = failure.error + failure.where
        self._n_lost += 1
        if failure.fault == "worker":
            self._broken = f"a worker can train nothing: {error}"
        elif attempts >= N_ATTEMPTS and self._n_lost >= N_ATTEMPTS:
            self._broken = f"the machine broke off the last {self._n_lost} trainings: {error}"
        return attempts < N_ATTEMPTS or bool(self._broken)

    def stopped(self) -> None:
        """A trial was stopped early, so that not all fail."""
        self._first = None

    def finished(self) -> None:
        """A trial was trained to the end and its tensors are saved."""
        self._first, self._n_lost = None, 0

    def check(self, oldest: float) -> None:
        """Ends the run where nothing comes of it.

        Args:
            oldest: the least number of those in training; later failures do not count yet.

        Raises:
            StudyError: the first trials have failed alike, or the machine breaks off all of them.
        """
        first = [failure for number, failure in (self._first or {}).items() if number < oldest]
        if len(first) >= N_ALIKE and len({error for error, _ in first}) == 1:
            shared = "".join(first[0])
            raise StudyError(f"the first {len(first)} trials failed alike: {shared}", "run")
        if self._broken:
            raise StudyError(f"{self._broken}; what is left waits for the next run", "run")
