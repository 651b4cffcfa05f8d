"""Tells trackers of experiments what becomes of the trials of a study."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec

from autopeft.core.errors import StudyError, unknown
from autopeft.core.report import described
from autopeft.report.summary import summary
from autopeft.report.trackers import TRACKERS, Entry, Run, may_log
from autopeft.study.record import record_id
from autopeft.study.study import Study
from autopeft.study.trial import TrialRecord

_log = logging.getLogger("autopeft")


def check_trackers(names: Iterable[str]) -> None:
    """Refuses a tracker that there is not, or whose library is missing.

    Raises:
        StudyError: says which.
    """
    for name in names:
        if name not in TRACKERS:
            raise StudyError(unknown("tracker", name, TRACKERS), "report_to")
        module = TRACKERS[name][0]
        if find_spec(module) is None:
            raise StudyError(f"{name} needs {module}: pip install 'autopeft[track]'", "report_to")
        if name == "wandb" and not may_log():
            reason = "nobody is logged in to wandb: `wandb login`, or WANDB_MODE=offline"
            raise StudyError(reason, "report_to")


@contextmanager
def tracking(names: Iterable[str], name: str, folder: str) -> Iterator[Callable[[Study], None]]:
    """What tells trackers of the trials of this process when it is called; at the end all is told.

    A tracker that fails is given up, and the study goes on. Of a trial that goes on only what is
    new is told.

    Args:
        names: of the trackers.
        name: of the study.
        folder: of the study.
    """
    trackers = [_Tracker(each, name, folder) for each in names]

    def watch(study: Study) -> None:
        for tracker in trackers:
            tracker.attempt(partial(tracker.look, study))

    try:
        yield watch
    finally:
        for tracker in trackers:
            tracker.attempt(tracker.leave)


@dataclass
class _Told:
    """What a tracker knows of a trial."""

    run: Run
    n_reports: int


class _Tracker:
    """What one tracker has been told."""

    def __init__(self, name: str, study: str, folder: str) -> None:
        self._name, self._study, self._folder = name, study, folder
        self._told: dict[int, _Told] = {}
        self._has_failed = False

    def attempt(self, act: Callable[[], None]) -> None:
        """Does something, unless the tracker has failed before."""
        try:
            if not self._has_failed:
                with redirect_stdout(sys.stderr):  # what libraries tell is no result
                    act()
        except Exception as error:  # whatever a library raises, its servers being away for one
            self._has_failed = True
            _log.warning("%s is told no more: %s", self._name, described(error))

    def look(self, study: Study) -> None:
        """Tells what is new of the trials of this process."""
        trials = study.trials()
        for number in study.own:
            if number not in self._told:
                key = f"{record_id(study.record)[:8]}-{number}"
                self._told[number] = self._started(trials[number], key)
        for number, told in list(self._told.items()):
            trial = trials[number]
            is_own = trial.ended is not None or number in study.own  # else another process has it
            for report in trial.reports[told.n_reports :] if is_own else ():
                told.run.log({**report.metrics, "epoch": report.fidelity}, report.step)
            told.n_reports = len(trial.reports)
            if trial.ended is not None or not is_own:
                told.run.end(trial.state if is_own else "interrupted", trial.values)
                del self._told[number]

    def leave(self) -> None:
        """Ends the runs of trials that have not ended."""
        while self._told:
            _, told = self._told.popitem()
            told.run.end("interrupted", {})

    def _started(self, trial: TrialRecord, key: str) -> _Told:
        config = dict(_described(trial))
        _, make = TRACKERS[self._name]
        run = make(Entry(self._study, self._folder, trial.number, key, config))
        return _Told(run, len(trial.reports))


def _described(trial: TrialRecord) -> Iterator[tuple[str, str | float]]:
    """What is trained, by name."""
    if trial.proposer is not None:
        yield "proposer", trial.proposer
        return
    yield "configuration", summary(trial.config)
    yield "methods", "+".join(sorted({p.method for p in trial.config.placements})) or "none"
    if trial.baseline is not None:
        yield "baseline", trial.baseline
    if trial.repeat_of is not None:
        yield "repeat_of", trial.repeat_of
    if trial.origin is not None:
        yield "origin", trial.origin
    yield from trial.known.items()
    for name, value in (*trial.config.train, *trial.config.backbone):
        yield name, value if isinstance(value, int | float) else str(value)
