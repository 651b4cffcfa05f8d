"""`Study`: hands out configurations and keeps what became of them."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.trial import TrialState

from autopeft.core.budget import Budget
from autopeft.core.config import PeftConfig
from autopeft.core.errors import StudyError, unknown
from autopeft.core.report import Report
from autopeft.objective.objective import Objective
from autopeft.search.known import Known
from autopeft.search.stopping import Curve
from autopeft.space.bound import BoundSpace
from autopeft.space.dimension import Dimension
from autopeft.study.heart import Heart, is_alive
from autopeft.study.record import read_trial, read_trials
from autopeft.study.trial import TrialRecord

N_DUPLICATES = 30
"""Proposals in a row that were seen before, after which one is drawn from the space."""

N_REJECTED = 300
"""Proposals in a row that a limit rejects, after which the search gives up."""


@dataclass(frozen=True)
class Terms:
    """What a study must respect.

    Attributes:
        known: how known objectives and limited quantities are computed, by name.
        limits: the greatest value of each limited quantity, in its unit.
        n_trials: trials in all, baselines and failures included.
        seed: of training.
        rungs: epochs after which a trial reports.
        folder: for trained tensors.
        baselines: configurations that are trained first, by name.
    """

    known: Mapping[str, Known]
    limits: Mapping[str, float]
    n_trials: int
    seed: int
    rungs: tuple[float, ...]
    folder: str
    baselines: Mapping[str, PeftConfig] = field(default_factory=dict)


@dataclass(frozen=True)
class Ticket:
    """A trial that is to be run.

    Attributes:
        number: of the trial.
        config: what to train.
        budget: how far, and where the tensors go.
    """

    number: int
    config: PeftConfig
    budget: Budget


class Study:
    """A study that is being run; every change is in the storage before a method returns.

    Several processes may run the same study. Used as a context, it shows signs of life.
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
        self._heart = Heart(record)
        self._lock = threading.RLock()
        self._started: dict[int, float] = {}
        self._ids: dict[int, int] = {}

    def __enter__(self) -> Study:
        self._heart.__enter__()
        self._recover()
        self._enqueue_baselines()
        return self

    def __exit__(self, *error: object) -> None:
        for number in list(self._started):
            self._interrupt(number)
        self._heart.__exit__(*error)

    def trials(self) -> tuple[TrialRecord, ...]:
        """Every trial so far."""
        return read_trials(self.record, self.names)

    @property
    def n_left(self) -> int:
        """Trials that are still to be started."""
        return max(0, self.terms.n_trials - sum(map(_counts, self.trials())))

    def ask(self) -> Ticket | None:
        """The next trial; None where the study has as many as it may have.

        Raises:
            StudyError: the limits reject whatever is proposed.
        """
        with self._lock:
            duplicates = rejected = 0
            while self.n_left:
                if duplicates >= N_DUPLICATES and not self._enqueue_unseen():
                    return None
                trial = self.record.ask()
                reason = self._draw(trial)
                if reason is None:
                    return self._ticket(trial)
                self._reject(trial, reason)
                duplicates += reason.startswith("the same")
                rejected += not reason.startswith("the same")
                if rejected >= N_REJECTED:
                    raise StudyError(
                        f"{rejected} configurations in a row were rejected, the last because "
                        f"{reason}",
                        "limits",
                    )
            return None

    def _draw(self, trial: optuna.Trial) -> str | None:
        """Fills in the configuration of a trial; the reason if it is not to be trained."""
        given = trial.user_attrs.get("config")
        if given is not None and not self._frozen(trial.number).system_attrs.get("fixed_params"):
            config = PeftConfig.from_dict(given)
        else:
            dimensions = self.space.dimensions.values()
            config = self.space.resolve({d.name: suggest(trial, d) for d in dimensions})
        trial.set_user_attr("owner", self._heart.owner)
        trial.set_user_attr("config", config.to_dict())
        trial.set_user_attr("key", config.key)
        if trial.user_attrs.get("baseline") is None and "retry" not in trial.user_attrs:
            twin = self._twin(config, trial.number)
            if twin is not None:
                return f"the same configuration is trial {twin}"
        known = {name: known.value(config) for name, known in self.terms.known.items()}
        trial.set_user_attr("known", known)
        for name, limit in self.terms.limits.items():
            if known[name] > limit:
                return f"{name} is {known[name]:,.0f}, the limit is {limit:,.0f}"
        return None

    def _twin(self, config: PeftConfig, number: int) -> int | None:
        """An earlier trial of the same configuration that was or is being trained."""
        for trial in self.record.get_trials(deepcopy=False):
            attrs = trial.user_attrs
            same = trial.number < number and attrs.get("key") == config.key
            if same and "rejected" not in attrs and "interrupted" not in attrs:
                return trial.number
        return None

    def _ticket(self, trial: optuna.Trial) -> Ticket:
        self._started[trial.number] = time.monotonic()
        self._ids[trial.number] = trial._trial_id
        folder = str(Path(self.terms.folder) / "trials" / str(trial.number))
        config = PeftConfig.from_dict(trial.user_attrs["config"])
        return Ticket(trial.number, config, Budget(self.terms.rungs, self.terms.seed, folder))

    def _reject(self, trial: optuna.Trial, reason: str) -> None:
        trial.set_user_attr("rejected", reason)
        self.record.tell(trial.number, state=TrialState.PRUNED)

    def _enqueue_unseen(self) -> bool:
        """Queues a configuration that no trial has; False where none was found."""
        rng = np.random.default_rng((self.terms.seed, len(self.record.get_trials(deepcopy=False))))
        for _ in range(N_REJECTED):
            config = self.space.sample(rng)
            if self._twin(config, 1 << 62) is None:
                self.record.enqueue_trial(self._point(config))
                return True
        return False

    def report(self, ticket: Ticket, report: Report) -> Curve:
        """Records what a trial reports and gives its learning curve."""
        with self._lock:
            trial = self._frozen(ticket.number)
            reports = [*trial.user_attrs.get("reports", ()), _document(report)]
            self._set(ticket.number, "reports", reports)
            return self.curve(read_trial(self._frozen(ticket.number), self.names))

    def curves(self) -> list[Curve]:
        """The learning curves of all trials that have reported."""
        return [self.curve(trial) for trial in self.trials() if trial.reports]

    def curve(self, trial: TrialRecord) -> Curve:
        """A trial as a stopper sees it."""
        known = tuple(o.loss(trial.known.get(o.name, math.nan)) for o in self.objectives if o.known)
        return Curve(trial.number, known, trial.reports, trial.baseline is not None)

    def finish(self, ticket: Ticket) -> None:
        """Records a trial that was trained to the end, by its last report."""
        trial = read_trial(self._frozen(ticket.number), self.names)
        measured = {**(trial.reports[-1].metrics if trial.reports else {}), **trial.known}
        missing = [name for name in self.names if name not in measured]
        if missing:
            self.fail(ticket, unknown("metric", missing[0], measured))
            return
        values = [float(measured[name]) for name in self.names]
        if not all(math.isfinite(value) for value in values):
            self.fail(
                ticket, f"a value is not finite: {dict(zip(self.names, values, strict=True))}"
            )
            return
        self._set(ticket.number, "folder", ticket.budget.folder)
        self._end(ticket.number, TrialState.COMPLETE, values)

    def stop(self, ticket: Ticket, reason: str) -> None:
        """Records a trial that was stopped early."""
        self._set(ticket.number, "stopped", reason)
        self._end(ticket.number, TrialState.PRUNED)

    def fail(self, ticket: Ticket, error: str) -> None:
        """Records a trial that failed, with the text of its error."""
        self._set(ticket.number, "error", error)
        self._end(ticket.number, TrialState.FAIL)

    def _end(self, number: int, state: TrialState, values: Sequence[float] | None = None) -> None:
        seconds = time.monotonic() - self._started.pop(number, time.monotonic())
        self._set(number, "seconds", seconds)
        self.record.tell(number, values, state)

    def _set(self, number: int, key: str, value: Any) -> None:
        self.record._storage.set_trial_user_attr(self._id(number), key, value)

    def _id(self, number: int) -> int:
        if number not in self._ids:
            self._ids[number] = self._frozen(number)._trial_id
        return self._ids[number]

    def _frozen(self, number: int) -> optuna.trial.FrozenTrial:
        return self.record.get_trials(deepcopy=False)[number]

    def _recover(self) -> None:
        """Queues again what dead processes were running."""
        for trial in self.record.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if not is_alive(self.record, trial.user_attrs.get("owner")):
                self._interrupt(trial.number)

    def _interrupt(self, number: int) -> None:
        trial = self._frozen(number)
        self._started.pop(number, None)
        self._set(number, "interrupted", True)
        self._set(number, "error", "interrupted")
        self.record.tell(number, state=TrialState.FAIL)
        if "config" in trial.user_attrs:
            kept: dict[str, Any] = {
                key: trial.user_attrs[key]
                for key in ("config", "key", "baseline")
                if key in trial.user_attrs
            }
            self.record.enqueue_trial(dict(trial.params), user_attrs={**kept, "retry": number})

    def _enqueue_baselines(self) -> None:
        known = {t.user_attrs.get("baseline") for t in self.record.get_trials(deepcopy=False)}
        for name, config in self.terms.baselines.items():
            if name not in known:
                attrs = {"config": config.to_dict(), "key": config.key, "baseline": name}
                self.record.enqueue_trial(self._point(config), user_attrs=attrs)

    def _point(self, config: PeftConfig) -> dict[str, Any]:
        """A value for every decision, those that `config` leaves open included; none outside."""
        params = self.space.assign(config)
        if params is None:
            return {}
        return {
            d.name: params.get(d.name, d.from_unit(0.0)) for d in self.space.dimensions.values()
        }


def _counts(trial: TrialRecord) -> bool:
    """Whether a trial is one of `n_trials`: it is or was trained."""
    return trial.state in {"complete", "stopped", "running"} or (
        trial.state == "failed" and trial.error != "interrupted"
    )


def _document(report: Report) -> dict[str, Any]:
    return {**asdict(report), "metrics": dict(report.metrics)}


def suggest(trial: optuna.Trial, dimension: Dimension) -> Any:
    """The value that Optuna's sampler gives a decision."""
    distribution = dimension.distribution()
    if isinstance(distribution, optuna.distributions.CategoricalDistribution):
        return trial.suggest_categorical(dimension.name, distribution.choices)
    if isinstance(distribution, optuna.distributions.IntDistribution):
        return trial.suggest_int(
            dimension.name,
            distribution.low,
            distribution.high,
            step=distribution.step,
            log=distribution.log,
        )
    assert isinstance(distribution, optuna.distributions.FloatDistribution)
    return trial.suggest_float(
        dimension.name,
        distribution.low,
        distribution.high,
        step=distribution.step,
        log=distribution.log,
    )
