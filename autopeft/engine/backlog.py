"""The trials of a run that no worker trains at the moment, and what is decided about them."""

from __future__ import annotations

from collections import deque
from dataclasses import replace

from autopeft.core.report import Failure, Report
from autopeft.engine.engine import Watch, described
from autopeft.search.stopping import Decision, Stopper
from autopeft.study.study import Study
from autopeft.study.trial import Trial

PAUSE = 1.0
"""Seconds between two looks for trials of which there are none for the moment."""


class Backlog:
    """Trials that wait for room on any worker, and trials that pause until they are decided about.

    Those that go on after a pause are trained before new ones are asked for.

    Args:
        study: entered by the caller.
        stopper: decides after every report but the last, and again about those that pause.
        watch: called after every change.
    """

    def __init__(self, study: Study, stopper: Stopper, watch: Watch) -> None:
        self.study, self.stopper, self.watch = study, stopper, watch
        self._waiting: deque[Trial] = deque()
        self._paused: dict[int, Trial] = {}
        self._training: set[int] = set()
        self._closed = False

    @property
    def is_over(self) -> bool:
        """Whether nothing is trained and nothing is left that may be; known once one was wanted."""
        return not (self._training or self._waiting or self._paused)

    def next(self) -> Trial | None:
        """The trial that is to be trained next, until it is taken; None where there is none now.

        Raises:
            StudyError: see `Study.ask`.
        """
        if not self._waiting:
            self._ask()
        return self._waiting[0] if self._waiting else None

    def take(self) -> Trial:
        """The next trial, for a worker."""
        trial = self._waiting.popleft()
        self._training.add(trial.number)
        if trial.order.reached:
            self.study.go_on(trial)
        return trial

    def record(self, trial: Trial, event: Report | Failure) -> bool:
        """Records what a trial in training reports; whether its worker trains on."""
        goes_on = self._goes_on(trial, event)
        if not goes_on:
            self._training.remove(trial.number)
            self.watch(self.study)
        self._review()
        return goes_on

    def _ask(self) -> None:
        trial = self.study.ask()
        self._closed = trial is None
        if trial is None:
            self._review()
            return
        pauses = self.stopper.pauses and not trial.protected
        order = replace(trial.order, pauses=pauses)
        self._waiting.append(replace(trial, order=order))
        self.watch(self.study)

    def _goes_on(self, trial: Trial, event: Report | Failure) -> bool:
        """Records an event; whether its trial is still trained."""
        if isinstance(event, Failure):
            self.study.fail(trial, event.error, event.where, environment=event.environment)
            return False
        try:
            curve = self.study.report(trial, event)
            if event.fidelity >= trial.order.rungs[-1]:
                self.study.finish(trial)
                return False
            decision = self.stopper.decide(self.study.curves(), curve, self._closed)
        except Exception as error:
            self.study.fail(trial, described(error))
            return False
        if decision.waits:
            self._paused[trial.number] = self.study.pause(trial, event.fidelity)
        elif not decision.goes_on:
            self.study.stop(trial, decision.reason)
        return decision.goes_on

    def _review(self) -> None:
        """Decides again about the trials that pause."""
        curves = {curve.number: curve for curve in self.study.curves()} if self._paused else {}
        for number, trial in list(self._paused.items()):
            try:
                decision = self.stopper.decide(list(curves.values()), curves[number], self._closed)
            except Exception as error:
                self.study.fail(trial, described(error))
            else:
                if decision.waits:
                    continue
                self._end_pause(trial, decision)
            del self._paused[number]
            self.watch(self.study)

    def _end_pause(self, trial: Trial, decision: Decision) -> None:
        if decision.goes_on:
            self._waiting.append(trial)
        else:
            self.study.stop(trial, decision.reason)
