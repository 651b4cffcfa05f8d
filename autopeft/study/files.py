"""Where the tensors of trials lie."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from optuna.trial import FrozenTrial, TrialState


class Files:
    """The folders of the trials of a study, in one that no other study has.

    Args:
        folder: of all studies with the same output.
        study: what no other record is called.
    """

    def __init__(self, folder: str, study: str) -> None:
        self._folder = Path(folder) / "trials" / study[:8]

    def of(self, number: int) -> str:
        """The folder of a trial."""
        return str(self._folder / str(number))

    def remove(self, number: int) -> None:
        """Removes that, if it is there."""
        shutil.rmtree(self.of(number), ignore_errors=True)

    def clear(self, trials: Iterable[FrozenTrial]) -> None:
        """Removes what is left of trials without a result whose processes died as they ended."""
        there = {path.name for path in self._folder.glob("*")}
        for trial in trials:
            if str(trial.number) in there and trial.state in (TrialState.PRUNED, TrialState.FAIL):
                self.remove(trial.number)
