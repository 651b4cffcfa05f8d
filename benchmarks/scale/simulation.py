"""A study that is run in simulated time: real decisions, recorded training."""

from __future__ import annotations

import heapq
import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from autopeft.core.report import Report
from autopeft.search.stopping import Decision, Stopper
from autopeft.study.study import Study
from autopeft.study.trial import Trial
from benchmarks.scale.meter import Meter
from benchmarks.scale.replay import Replay


@dataclass
class Clock:
    """Simulated seconds.

    The driver takes one decision after another. Where decisions are charged, a decision starts
    when the driver is free and takes as long as it does in truth; else it takes no time.

    Attributes:
        charge: whether the wall time of decisions is added.
        free: when the driver has taken the decisions so far.
    """

    charge: bool
    free: float = 0.0

    def decided(self, now: float, started: float) -> float:
        """When the worker that asked at `now` goes on; `started` is `time.perf_counter`'s."""
        if not self.charge:
            return now
        self.free = max(self.free, now) + time.perf_counter() - started
        return self.free


@dataclass
class Running:
    """A trial on a worker: what is still to come, by rung, and the seconds it has worked."""

    trial: Trial
    left: Iterator[tuple[float, Report]]
    worked: float = 0.0


@dataclass
class Outcome:
    """Simulated seconds of a run.

    Attributes:
        makespan: from the first question to the last report.
        work: of each trial.
    """

    makespan: float = 0.0
    work: list[float] = field(default_factory=list)

    def lower_bound(self, workers: int) -> float:
        """Seconds that no schedule of the same work goes below."""
        return max(sum(self.work) / workers, max(self.work, default=0.0))

    def idle_share(self, workers: int) -> float:
        """Of the workers' time until the makespan."""
        return 1.0 - sum(self.work) / (workers * self.makespan) if self.makespan else 0.0


class Simulation:
    """Workers that take trials from a study and report recorded curves.

    Args:
        study: entered by the caller.
        stopper: decides after every report but the last.
        replay: of the curves and durations.
        charge: whether the time of decisions counts.
    """

    def __init__(self, study: Study, stopper: Stopper, replay: Replay, charge: bool) -> None:
        self.study, self.stopper, self.replay = study, stopper, replay
        self.clock, self.meter, self.outcome = Clock(charge), Meter(), Outcome()
        self._events: list[tuple[float, int, Running, Report]] = []
        self._order = itertools.count()

    def run(self, workers: int) -> Outcome:
        """Runs the study to its end."""
        for _ in range(workers):
            if not self._start(0.0):
                break
        while self._events:
            now, _, running, report = heapq.heappop(self._events)
            self.outcome.makespan = now
            self._judge(now, running, report)
        return self.outcome

    def _start(self, now: float) -> bool:
        """A worker without a trial asks for one; whether it got one."""
        started = time.perf_counter()
        with self.meter.timed("ask"):
            trial = self.study.ask()
        if trial is None:
            return False
        config = trial.config
        steps = zip(
            self.replay.durations(config), self.replay.reports(config, trial.number), strict=True
        )
        self._go_on(self.clock.decided(now, started), Running(trial, iter(steps)))
        return True

    def _go_on(self, now: float, running: Running) -> None:
        """Trains to the next rung; what is not there to train has ended."""
        seconds, report = next(running.left)
        running.worked += seconds
        heapq.heappush(self._events, (now + seconds, next(self._order), running, report))

    def _judge(self, now: float, running: Running, report: Report) -> None:
        """A worker reports; its trial goes on, or it asks for the next one."""
        started, trial = time.perf_counter(), running.trial
        with self.meter.timed("report"):
            decision = self._decision(trial, report)
        last = report.fidelity >= trial.order.rungs[-1]
        if decision.goes_on and not last:
            self._go_on(self.clock.decided(now, started), running)
            return
        with self.meter.timed("finish"):
            if last:
                self.study.finish(trial)
            else:
                self.study.stop(trial, decision.reason)
        self.outcome.work.append(running.worked)
        self._start(self.clock.decided(now, started))

    def _decision(self, trial: Trial, report: Report) -> Decision:
        curve = self.study.report(trial, report)
        return self.stopper.decide(self.study.curves(), curve)
