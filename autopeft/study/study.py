"""`Study`: hands out configurations and keeps what became of them."""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from autopeft.core.config import PeftConfig
from autopeft.core.document import Document
from autopeft.core.errors import StudyError, unknown
from autopeft.core.report import Failure, Fault, Proposals, Report
from autopeft.objective.objective import Objective
from autopeft.search.stopping import Curve
from autopeft.space.bound import BoundSpace
from autopeft.study.clock import Clock
from autopeft.study.files import Files
from autopeft.study.heart import Heart
from autopeft.study.index import BESIDE, Index
from autopeft.study.ledger import OWNER
from autopeft.study.others import LOOK_AGAIN, Others
from autopeft.study.queue import Queue
from autopeft.study.record import lost, read_trial, record_id, stamp_of
from autopeft.study.shortages import Shortages
from autopeft.study.spare import Spare
from autopeft.study.storage import flush, release, sign
from autopeft.study.suggest import suggest
from autopeft.study.terms import Terms
from autopeft.study.trial import Trial, TrialRecord
from autopeft.study.trouble import Trouble

_log = logging.getLogger("autopeft")

UNLIMITED = {"repeat_of", "reports", "proposer"}
"""Attributes of trials that keep the limits already, or that train parts of a configuration."""

N_REFUSED = 30
"""Proposals in a row that were seen before or exceed a limit, after which one is looked for."""


class Study:
    """A study that is being run; every change is in the storage before a method returns.

    Several processes may run the same study. Used as a context, it shows signs of life, takes
    over what dead processes were running, and at the end leaves to others what it has not finished.
    """

    def __init__(
        self,
        record: optuna.Study,
        space: BoundSpace,
        objectives: Sequence[Objective],
        terms: Terms,
    ) -> None:
        self.record, self.space, self.terms = record, space, terms
        self.objectives = tuple(objectives)
        self.names = [objective.name for objective in objectives]
        self._id, self._heart = record_id(record), Heart(record)
        self._files = Files(terms.folder, self._id)
        sign(record, {OWNER: self._heart.owner})
        self._running: dict[int, tuple[optuna.Trial, Clock]] = {}
        self._others = Others(record, self._heart, self._running.keys())
        self._queue, self._index = Queue(record), Index(self.names)
        self._curves: dict[int, Curve] = {}
        self._spare, self._has_told = Spare(space, terms), False
        self._trouble, self._shortages = Trouble(), Shortages(terms)

    def __enter__(self) -> Study:
        self._heart.start()
        self._recover()
        self._files.clear(self.record.get_trials(deepcopy=False))
        self._queue.baselines(self.terms.baselines, self._seen())
        self._queue.proposers(self.terms, self._seen())
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Ends the signs of life.

        Raises:
            StudyError: the storage cannot be reached any more.
        """
        failure = lost(error)
        try:
            for number in list(self._running) if failure is None else ():
                self._interrupt(number)
        except Exception as late:
            failure = lost(late)
            if failure is None:
                raise
        finally:
            self._heart.stop()
        if failure is not None:
            raise failure from error

    def trials(self) -> tuple[TrialRecord, ...]:
        """Every trial so far, in order of number."""
        self._read()
        return self._index.records()

    @property
    def n_left(self) -> int:
        """Trials that are still to be started, those beside `n_trials` included."""
        index = self._seen()
        return max(0, self.terms.n_trials - index.n_counted()) + index.n_waiting_beside()

    @property
    def own(self) -> Collection[int]:
        """The numbers of the trials that this process has begun and not ended."""
        return self._running.keys()

    def queue_repeats(self) -> int:
        """Queues finalists and baselines once more for every fresh seed, see `repeats`.

        Those that have been queued before are not queued again.

        Returns:
            How many were queued.
        """
        return self._queue.repeats(self.trials(), self.objectives, self.terms, self._seen())

    def ask(self) -> Trial | None:
        """The next trial; None where the study has as many as it may have.

        Raises:
            StudyError: the limits reject whatever is proposed, all trials fail alike, or the
                machine breaks off all of them.
        """
        self._check_trouble()
        self._shortages.learn(self._seen())
        n_refused, reason = 0, None
        while self._wants_more() and not self._is_over(n_refused, reason):
            trial = self._take()
            if trial is None:
                return None
            config = self._draw(trial)
            reason = self._twin(trial)
            if reason is None and not self._has_known(trial, config):
                self._check_trouble()
                continue
            if UNLIMITED.isdisjoint(trial.user_attrs):
                reason = reason or self.terms.excess(trial.user_attrs["known"])
            if reason is None:
                return self._handed_out(trial, config)
            self._reject(trial, reason)
            n_refused += 1
        return None

    def report(self, trial: Trial, report: Report) -> Curve:
        """Records what a trial reports and gives its learning curve."""
        stored, _ = self._running[trial.number]
        attrs = stored.user_attrs
        attrs["reports"] = [*attrs.get("reports", ()), asdict(report)]
        stored.set_user_attr("reports", attrs["reports"])
        if attrs.get("attempts"):
            stored.set_user_attr("attempts", 0)
        flush(self.record)
        as_it_is = self.record._storage.get_trial(stored._trial_id)
        return read_trial(as_it_is, self.names).curve(self.objectives)

    def pause(self, trial: Trial, reached: float) -> Trial:
        """Records that a trial waits at a rung; the trial with which it goes on."""
        self._set_paused(trial, True)
        return replace(trial, order=replace(trial.order, reached=reached))

    def go_on(self, trial: Trial) -> None:
        """Records that the pause of a trial has ended."""
        self._set_paused(trial, False)

    def curves(self) -> list[Curve]:
        """The learning curves of all trials that were started, without repeats."""
        self._read()
        return list(self._curves.values())

    def finish(self, trial: Trial) -> None:
        """Records a trial that was trained to the end, by its last report."""
        attrs = self._running[trial.number][0].user_attrs
        reports = attrs.get("reports", ())
        measured = {**(reports[-1]["metrics"] if reports else {}), **attrs["known"]}
        missing = [name for name in self.names if name not in measured]
        if missing:
            self.fail(trial, Failure(trial.number, unknown("metric", missing[0], measured)))
            return
        values = {name: float(measured[name]) for name in self.names}
        if not all(map(math.isfinite, values.values())):
            told = f"a value is not finite: {values}"
            is_known = all(math.isfinite(values[n]) for n in values if n not in attrs["known"])
            fault: Fault = "configuration" if is_known else "divergence"
            self.fail(trial, Failure(trial.number, told, fault=fault))
            return
        self._trouble.finished()
        self._end(trial, TrialState.COMPLETE, {"folder": trial.order.folder}, list(values.values()))

    def stop(self, trial: Trial, reason: str, *, has_begun: bool = True) -> None:
        """Records a trial that was stopped early, or `has_begun` no training before that."""
        if has_begun:
            self._trouble.stopped()
        self._end(trial, TrialState.PRUNED, {"stopped": reason})

    def propose(self, trial: Trial, proposals: Proposals) -> None:
        """Queues what a one-shot search proposes, and records its end."""
        origin = Document(self._running[trial.number][0].user_attrs).proposer
        for point in proposals.points:
            self._queue.put(self.space.filled(point), {"origin": origin})
        n = len(proposals.points)
        self.stop(trial, f"proposed {n} configuration{'' if n == 1 else 's'}")

    def fail(self, trial: Trial, failure: Failure) -> None:
        """Records a trial that failed, or lets it wait again where that is not its own fault."""
        stored, _ = self._running[trial.number]
        attempts = stored.user_attrs.get("attempts", 0) + (failure.fault == "machine")
        if self._trouble.lost(attempts, failure):
            told = failure.error + failure.where
            self._interrupt(trial.number, {"lost": told, "attempts": attempts})
            return
        self._trouble.failed(trial.number, failure.error, failure.where)
        self._end(trial, TrialState.FAIL, self._shortages.attributes(failure, trial.config))

    @property
    def _needed(self) -> list[str]:
        """What is to be known of a trial before training."""
        known = {o.name for o in self.objectives if o.known}
        return sorted((known | self.terms.limits.keys()) & self.terms.known.keys())

    def _set_paused(self, trial: Trial, paused: bool) -> None:
        """Unless another process took this one for dead and has taken over the trial."""
        stored, clock = self._running[trial.number]
        if paused:
            clock.pause()
        else:
            clock.go_on()
        with contextlib.suppress(optuna.exceptions.UpdateFinishedTrialError):
            stored.set_user_attr("paused", paused)
            flush(self.record)

    def _wants_more(self) -> bool:
        """Whether a trial is to be started, now or for a process that has died."""
        while self.n_left <= 0 and not self._recover():
            if self._running or not self._others.are_in_doubt():
                return False
            time.sleep(LOOK_AGAIN)
        return self.n_left > 0

    def _take(self) -> optuna.Trial | None:
        """A trial of this process's own; None where another process has taken the last one."""
        trial = self.record.ask()
        self._running[trial.number] = trial, Clock()
        is_beside = not BESIDE.isdisjoint(trial.user_attrs)
        if is_beside or self._seen().n_counted(trial.number) < self.terms.n_trials:
            return trial
        attrs = trial.user_attrs
        self._reject(trial, "the study has as many trials as it may have")
        if "config" in attrs:
            self._queue.put(trial.params or self._seen().queued_point(trial.number), attrs)
        return None

    def _draw(self, trial: optuna.Trial) -> PeftConfig:
        """The configuration of a trial, now in the record."""
        given = trial.user_attrs.get("config")
        if given is not None and not self._seen().queued_point(trial.number):
            return PeftConfig.from_dict(given)
        dimensions = self.space.dimensions.values()
        config = self.space.resolve({d.name: suggest(trial, d) for d in dimensions})
        trial.set_user_attr("config", config.to_dict())
        trial.set_user_attr("key", config.key)
        flush(self.record)
        return config

    def _twin(self, trial: optuna.Trial) -> str | None:
        """Which other trial stands for the same thing, as a sentence."""
        twin = self._seen().twin(trial.number, trial.user_attrs)
        return None if twin is None else f"the same configuration is trial {twin}"

    def _check_trouble(self) -> None:
        self._trouble.check(min(self._running, default=math.inf))

    def _has_known(self, trial: optuna.Trial, config: PeftConfig) -> bool:
        """Records what is known of a trial before training; one of which it is not fails."""
        try:
            known = {name: self.terms.known[name].value(config) for name in self._needed}
        except Exception as error:  # whatever computes it, other trials go on
            reason = f"{type(error).__name__}: {error}"
            self._trouble.failed(trial.number, reason)
            trial.set_user_attr("error", reason)
            self._tell(trial.number, TrialState.FAIL)
            return False
        trial.set_user_attr("known", known)
        flush(self.record)
        return True

    def _handed_out(self, trial: optuna.Trial, config: PeftConfig) -> Trial:
        attrs = trial.user_attrs
        self._running[trial.number] = trial, Clock(attrs.get("reports", ()))  # from here on
        stamp = stamp_of(self._id, config)
        order = self.terms.order(attrs, self._files.of(trial.number), stamp)
        protected = not {"baseline", "repeat_of", "proposer"}.isdisjoint(attrs)
        return Trial(trial.number, config, order, protected)

    def _reject(self, trial: optuna.Trial, reason: str) -> None:
        if "baseline" in trial.user_attrs and "known" in trial.user_attrs:
            _log.warning("%s is not trained: %s", trial.user_attrs["baseline"], reason)
        trial.set_user_attr("rejected", reason)
        self._tell(trial.number, TrialState.PRUNED)

    def _end(
        self,
        trial: Trial,
        state: TrialState,
        attrs: Mapping[str, Any],
        values: Sequence[float] | None = None,
    ) -> None:
        """Ends a trial, unless another process took this one for dead and has taken it over."""
        stored, clock = self._running[trial.number]
        with contextlib.suppress(optuna.exceptions.UpdateFinishedTrialError):
            for key, value in {**attrs, "seconds": clock.seconds}.items():
                stored.set_user_attr(key, value)
        self._tell(trial.number, state, values)

    def _tell(self, number: int, state: TrialState, values: Sequence[float] | None = None) -> None:
        """Ends a trial that is still this process's own; what is not complete keeps no files."""
        self._running.pop(number, None)
        try:
            ended = self.record.tell(number, values, state, skip_if_finished=True)
        except (optuna.exceptions.UpdateFinishedTrialError, ValueError):  # it waits in the latter
            return
        if ended.state != TrialState.COMPLETE:
            self._files.remove(number)

    def _recover(self) -> int:
        """Lets what dead processes were running wait again; how many trials that were."""
        abandoned = self._others.abandoned()
        return sum(self._is_recovered(trial, abandoned) for trial in abandoned)

    def _is_recovered(self, trial: FrozenTrial, abandoned: Sequence[FrozenTrial]) -> bool:
        """Whether a trial of a dead process waits now, or has failed with its last process."""
        storage, attrs = self.record._storage, trial.user_attrs
        attempts = attrs.get("attempts", 0) + (not attrs.get("paused"))
        if not release(self.record, trial._trial_id, {"attempts": attempts}):
            return False
        end = self._others.end_of(trial, attempts, abandoned)
        if end and storage.set_trial_state_values(trial._trial_id, TrialState.RUNNING):
            for key, value in self._shortages.attributes(end, Document(attrs).config).items():
                storage.set_trial_user_attr(trial._trial_id, key, value)
            self._tell(trial.number, TrialState.FAIL)
        return True

    def _interrupt(self, number: int, attrs: Mapping[str, Any] | None = None) -> None:
        """Lets a trial wait for whoever takes it next, unless somebody has taken it already."""
        stored, _ = self._running.pop(number)
        with contextlib.suppress(optuna.exceptions.UpdateFinishedTrialError):
            release(self.record, stored._trial_id, attrs or {})

    def _is_over(self, n_refused: int, reason: str | None) -> bool:
        """Whether nothing is left to propose, which a line tells; queues what is found instead.

        Args:
            n_refused: proposals in a row.
            reason: of the last refusal.

        Raises:
            StudyError: there never was anything to train.
        """
        index = self._seen()
        is_exhausted = not index.is_waiting() and self._spare.is_exhausted(index.knows)
        if n_refused < N_REFUSED and not is_exhausted:
            return False
        drawn = self._spare.find(np.random.default_rng((self.terms.seed, len(index))), index.knows)
        if drawn is not None:
            self._queue.put(self.space.filled(drawn.point), {})
            return False
        ending = "every configuration has been tried" if is_exhausted else "no untried one is left"
        ending = ending if reason is None else f"{ending}; the last was refused because {reason}"
        if not index.n_counted():
            raise StudyError(f"no configuration can be trained: {ending}", "limits")
        if not self._has_told:
            _log.warning("the search ends after %d trials: %s", index.n_counted(), ending)
            self.record.set_user_attr("ended", ending)
        self._has_told = True
        return True

    def _seen(self) -> Index:
        """All trials as they are now."""
        self._index.update(self.record.get_trials(deepcopy=False))
        return self._index

    def _read(self) -> None:
        """Brings the values and the curves of all trials up to date."""
        for trial in self._seen().unread():
            if trial.state in ("waiting", "rejected") or not trial.is_own:
                self._curves.pop(trial.number, None)
            else:
                self._curves[trial.number] = trial.curve(self.objectives)
