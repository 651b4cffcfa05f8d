"""What early stopping saves on a table, and what it costs in hypervolume."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.trial import TrialState

from autopeft.core.config import PeftConfig
from autopeft.core.report import Report
from autopeft.search.stoppers import Fidelity, make_stopper
from autopeft.search.stopping import Curve, Decision
from autopeft.search.surrogate import one_thread
from benchmarks.rows import rows_of
from benchmarks.search.figures import interval
from benchmarks.search.peers import PEERS
from benchmarks.search.problem import Table, tabular
from benchmarks.search.race import starts
from benchmarks.search.texts import N_VALIDATION, SHARES, tables

REDUCTION = 3.0
STOPPERS = ("model", "halving", "synchronous_halving")
Json = dict[str, Any]
SIGNALS = ("accuracy", "validation_loss", "train_loss")


@dataclass(frozen=True)
class Order:
    """One study that is wanted."""

    table: str
    stopper: str
    seed: int
    trials: int


@dataclass(frozen=True)
class End:
    """A study on a table.

    Attributes:
        volumes: share of the greatest hypervolume after every complete trial.
        trained: shares of whole trainings, in all.
    """

    volumes: Sequence[float]
    trained: float

    @property
    def volume(self) -> float:
        """What is reached."""
        return self.volumes[-1]


def study(order: Order) -> End:
    """One study with `bayes`, one trial after the other, each following its recorded curve.

    It begins with the starting points of the seed. Trials that wait at a rung do so while others
    are proposed.
    """
    run = _Run(order)
    for _ in range(order.trials):
        run.start()
        run.train(closed=False)
    while run.running:
        run.train(closed=True)
    volumes = [round(volume, 5) for volume in run.problem.volumes(run.complete)]
    trained = sum(curve.reports[-1].fidelity for curve in run.curves.values())
    return End(volumes, round(trained, 5))


class _Run:
    """A study on a table.

    Attributes:
        running: trials that have not ended.
        curves: of all trials, as far as they were trained.
        complete: values of those that were trained to the end, in that order.
    """

    def __init__(self, order: Order) -> None:
        self.problem, self._table = tabular(order.table), Table(tables() / f"{order.table}.csv")
        objectives = self.problem.objectives
        fidelity = Fidelity(SHARES, REDUCTION, objectives, "auto", N_VALIDATION)
        self._stopper = make_stopper(order.stopper, fidelity)
        self._record = optuna.create_study(
            sampler=PEERS["bayes"].make(self.problem, order.seed),
            directions=[objective.goal for objective in objectives],
        )
        for start in starts(self.problem, np.random.default_rng(order.seed)):
            self._record.enqueue_trial(dict(start.point))
        self.running: dict[int, tuple[optuna.Trial, PeftConfig]] = {}
        self.curves: dict[int, Curve] = {}
        self.complete: list[Sequence[float]] = []

    def start(self) -> None:
        """The next trial, before its training."""
        space = self.problem.space
        trial = self._record.ask(space.distributions())
        config = space.resolve(trial.params)
        values = self.problem.values(config)
        costs = tuple(self.problem.losses(values)[1:])
        trial.set_user_attr("known", dict(zip(self.problem.known, values[1:], strict=True)))
        self.curves[trial.number] = Curve(trial.number, costs, config=config)
        self.running[trial.number] = trial, config

    def train(self, closed: bool) -> None:
        """Trains whatever may go on, from rung to rung until it ends or waits."""
        for number, (trial, config) in list(self.running.items()):
            left = list(
                _reports(self._table.by_key[config.key])[len(self.curves[number].reports) :]
            )
            while (decision := self._decision(number, closed)).goes_on and left:
                curve = self.curves[number]
                self.curves[number] = replace(curve, reports=(*curve.reports, left.pop(0)))
            reports = self.curves[number].reports
            documents = [{"step": 0, "fidelity": r.fidelity, "metrics": r.metrics} for r in reports]
            trial.set_user_attr("reports", documents)
            if not decision.waits:
                self._end(number, whole=decision.goes_on)

    def _decision(self, number: int, closed: bool) -> Decision:
        return self._stopper.decide(list(self.curves.values()), self.curves[number], closed)

    def _end(self, number: int, whole: bool) -> None:
        trial, config = self.running.pop(number)
        self.curves[number] = replace(self.curves[number], ended=True)
        if whole:
            self.complete.append(self.problem.values(config))
            self._record.tell(trial, self.complete[-1])
        else:
            self._record.tell(trial, state=TrialState.PRUNED)


def _reports(row: Any) -> tuple[Report, ...]:
    return tuple(
        Report(0, share, {name: row[f"{name}@{n}"] for name in SIGNALS})
        for n, share in enumerate(SHARES, 1)
    )


def figures(names: Sequence[str], seeds: int, trials: int, path: Path, workers: int) -> Json:
    """Shares of training saved, and hypervolume with stopping over that without.

    By table and stopper, with the hypervolume over that of a study without stopping that ends after
    as much training, too; above them the worst of the tables with `STOPPERS[0]`. Studies are kept
    at `path`.
    """
    every = product(names, ("none", *STOPPERS), range(seeds))
    orders = [Order(name, stopper, seed, trials) for name, stopper, seed in every]
    rows = rows_of(orders, carry_out, path, workers)
    ends = {(r["table"], r["stopper"], r["seed"]): End(r["volumes"], r["trained"]) for r in rows}
    tables: dict[str, dict[str, Json]] = {}
    for name, stopper in product(names, STOPPERS):
        pairs = [(ends[name, stopper, seed], ends[name, "none", seed]) for seed in range(seeds)]
        tables.setdefault(name, {})[stopper] = _compared(pairs)
    worst = {
        key: min(each[STOPPERS[0]][key] for each in tables.values())
        for key in ("samples_saved", "hypervolume_ratio")
    }
    return {"trials": trials, "stopper": STOPPERS[0], **worst, "tables": tables}


def carry_out(order: Order) -> Json:
    """One study, with one thread."""
    with one_thread():
        return asdict(study(order))


def _compared(pairs: Sequence[tuple[End, End]]) -> Json:
    """Studies with a stopper, each with the one without of the same seed."""
    by_key = {
        "samples_saved": [1 - a.trained / b.trained for a, b in pairs],
        "hypervolume_ratio": [a.volume / b.volume for a, b in pairs],
        "hypervolume_ratio_at_equal_training": [
            a.volume / b.volumes[min(len(b.volumes), round(a.trained)) - 1] for a, b in pairs
        ],
    }
    summary: Json = {}
    for key, values in by_key.items():
        summary[key] = round(float(np.mean(values)), 4)
        summary[f"{key}_interval"] = interval(np.array(values), np.mean)
    return summary
