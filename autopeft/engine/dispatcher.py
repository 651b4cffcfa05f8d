"""Which worker trains which trials of a study, and what becomes of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace

from autopeft.core.report import Failure, Notice, Proposals, Shortage
from autopeft.engine.engine import Watch
from autopeft.engine.room import Room
from autopeft.search.stopping import Curve, Decision, Stopper
from autopeft.study.study import Study
from autopeft.study.trial import Trial
from autopeft.study.wishes import BY_HAND, Wishes

PAUSE = 1.0
"""Seconds after which a worker asks again where there was nothing to train."""


class Dispatcher:
    """Gives each worker the trials that it trains side by side, its pack, and records their end.

    A trial that does not fit waits, and no other is taken meanwhile; one alone always fits. Trials
    that pause leave their worker until they are decided about; those that then go on are trained
    before new ones are asked for. One that another run has begun is taken up as if it had paused at
    its last rung. Once all have ended, finalists and baselines are repeated.

    What people want of a trial goes before what the stopper decides; a run does not wait for a
    trial that somebody lets pause.

    Args:
        study: entered by the caller.
        stopper: decides after every report but the last, and again about those that pause.
        room: of each worker.
        watch: called after every change.
        n_workers: how many divide the trials that are left.
    """

    def __init__(
        self, study: Study, stopper: Stopper, room: Room, watch: Watch, n_workers: int = 1
    ) -> None:
        self.study, self.stopper, self.room, self.watch = study, stopper, room, watch
        self._n_workers = n_workers
        self._packs: dict[str, dict[int, Trial]] = {}
        self._waiting: deque[Trial] = deque()
        self._paused: dict[int, Trial] = {}
        self._wishes = Wishes(study.record)
        self._closed = False

    @property
    def is_over(self) -> bool:
        """Whether nothing is trained and nothing is left that may be; known after a `refill`."""
        return all(map(self._is_held, self._paused)) and not (self._packs or self._waiting)

    def pack(self, worker: str) -> Mapping[int, Trial]:
        """The trials that a worker trains, by number."""
        return self._packs.get(worker, {})

    def refill(self, worker: str) -> list[Trial]:
        """The trials that join the pack of a worker now.

        Raises:
            StudyError: see `Study.ask`.
        """
        joining: list[Trial] = []
        while self._has_place(worker) and self._fits(worker, self._next()):
            trial = self._waiting.popleft()
            self._packs.setdefault(worker, {})[trial.number] = trial
            if trial.order.reached:
                self.study.go_on(trial)
            joining.append(trial)
        return joining

    def record(self, worker: str, events: Sequence[Notice]) -> list[int]:
        """Records what a worker reports of its pack; the trials that leave it, ended or to pause.

        A worker that reports nothing at all has failed.
        """
        pack, leaving = self._packs.get(worker, {}), []
        for event in events or Failure.of_all(pack, "the evaluator reports nothing"):
            trial = pack.get(event.member)
            if trial is None:
                continue
            if not self._goes_on(trial, event):
                leaving.append(event.member)
                del pack[event.member]
            self.watch(self.study)
            self._review()
        if not pack:
            self._packs.pop(worker, None)
        return leaving

    def lost(self, worker: str) -> None:
        """Records that a worker is gone, with all that it trained."""
        self._lose(worker, "the worker process died")

    def lost_all(self) -> None:
        """Records that every worker is gone."""
        for worker in list(self._packs):
            self.lost(worker)

    def killed(self, worker: str, total: int) -> None:
        """Records that a worker is gone because its node, of so many bytes, had no more memory."""
        configs = [trial.config for trial in self.pack(worker).values()]
        shortage = Shortage.of(configs[0], "cpu", total) if len(configs) == 1 else None
        self._lose(worker, "the worker process was killed, its node is out of memory", shortage)

    def _lose(self, worker: str, told: str, shortage: Shortage | None = None) -> None:
        pack = self.pack(worker)
        if pack:
            failures = Failure.of_all(pack, told, "machine")
            self.record(worker, [replace(failure, shortage=shortage) for failure in failures])

    def _has_place(self, worker: str) -> bool:
        most = self.room.members
        if self._n_workers > 1 < most:
            n_left = self.study.n_left + sum(map(len, self._packs.values()))
            most = min(most, max(1, -(-n_left // self._n_workers)))
        return len(self.pack(worker)) < most

    def _fits(self, worker: str, trial: Trial | None) -> bool:
        if trial is None:
            return False
        pack = self.pack(worker).values()
        return not pack or self.room.holds(each.config for each in (*pack, trial))

    def _next(self) -> Trial | None:
        """The trial that is to be trained next; None where there is none now."""
        while not self._waiting and self._asks():
            pass
        return self._waiting[0] if self._waiting else None

    def _asks(self) -> bool:
        """Asks for a trial, to be trained or decided about; whether there is one."""
        trial = self.study.ask()
        if trial is None and self.is_over and self.study.queue_repeats():
            trial = self.study.ask()
        self._closed = trial is None
        if trial is None:
            self._review()
            return False
        if self._wishes.of(trial.number) == "stop":
            self.study.stop(trial, BY_HAND, has_begun=bool(trial.order.reached))
        elif not trial.order.reached:
            self._waiting.append(trial)
        elif not trial.order.ahead:
            self.study.finish(trial)
        else:
            self._paused[trial.number] = self.study.pause(trial, trial.order.reached)
            self._review()
        self.watch(self.study)
        return True

    def _goes_on(self, trial: Trial, event: Notice) -> bool:
        """Records an event; whether its trial is still trained."""
        if isinstance(event, Failure):
            self.study.fail(trial, event)
            return False
        if isinstance(event, Proposals):
            self.study.propose(trial, event)
            return False
        try:
            curve = self.study.report(trial, event)
            if trial.order.ends_at(event.fidelity):
                self.study.finish(trial)
                return False
            decision = self._decided(self.study.curves(), curve)
        except Exception as error:
            self.study.fail(trial, Failure.of(trial.number, error))
            return False
        if decision.waits:
            self._paused[trial.number] = self.study.pause(trial, event.fidelity)
        elif not decision.goes_on:
            self.study.stop(trial, decision.reason)
        return decision.goes_on

    def _decided(self, curves: Sequence[Curve], current: Curve) -> Decision:
        """What becomes of a trial: what somebody wants, else what the stopper decides."""
        wanted = self._wishes.of(current.number)
        if wanted in ("stop", "pause"):
            return Decision(False, BY_HAND, waits=wanted == "pause")
        nobody_waits = [replace(c, ended=c.ended or self._is_held(c.number)) for c in curves]
        return self.stopper.decide(nobody_waits, current, self._closed)

    def _is_held(self, number: int) -> bool:
        """Whether somebody lets a trial pause."""
        return self._wishes.of(number) == "pause"

    def _review(self) -> None:
        """Decides again about the trials that pause."""
        if not self._paused:
            return
        curves = {curve.number: curve for curve in self.study.curves()}
        for number, trial in list(self._paused.items()):
            try:
                own = curves.get(number, Curve(number, protected=True))
                decision = self._decided(list(curves.values()), own)
            except Exception as error:
                self.study.fail(trial, Failure.of(number, error))
            else:
                if decision.waits:
                    continue
                if decision.goes_on:
                    self._waiting.append(trial)
                else:
                    self.study.stop(trial, decision.reason)
            del self._paused[number]
            self.watch(self.study)
