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

from autopeft.core.report import Report
from autopeft.search.stoppers import Fidelity, make_stopper
from autopeft.search.stopping import Curve, Stopper
from autopeft.search.surrogate import one_thread
from benchmarks.search.figures import interval
from benchmarks.search.kept import kept
from benchmarks.search.peers import PEERS
from benchmarks.search.problem import Table, tabular
from benchmarks.search.race import starts
from benchmarks.search.texts import N_VALIDATION, SHARES, tables

REDUCTION, TRIALS = 3.0, 100
STOPPERS = ("model", "halving")
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

    It begins with the starting points of the seed.
    """
    name, seed = order.table, order.seed
    problem, table = tabular(name), Table(tables() / f"{name}.csv")
    fidelity = Fidelity(SHARES, REDUCTION, problem.objectives, "auto", N_VALIDATION)
    stopper, sampler = make_stopper(order.stopper, fidelity), PEERS["bayes"].make(problem, seed)
    directions = [objective.goal for objective in problem.objectives]
    record = optuna.create_study(sampler=sampler, directions=directions)
    for start in starts(problem, np.random.default_rng(seed)):
        record.enqueue_trial(dict(problem.space.assign(start) or {}))
    curves: list[Curve] = []
    complete, trained = [], 0.0
    for number in range(order.trials):
        trial = record.ask(problem.space.distributions())
        config = problem.space.resolve(trial.params)
        values = problem.values(config)
        reports = _reports(table.by_key[config.key])
        costs = tuple(problem.losses(values)[1:])
        reached = _trained(stopper, curves, Curve(number, costs, reports, config=config))
        curves.append(reached)
        trained += reached.reports[-1].fidelity
        documents = [{"fidelity": r.fidelity, "metrics": r.metrics} for r in reached.reports]
        trial.set_user_attr("reports", documents)
        trial.set_user_attr("known", dict(zip(problem.known, values[1:], strict=True)))
        if len(reached.reports) == len(reports):
            complete.append(values)
            record.tell(trial, values)
        else:
            record.tell(trial, state=TrialState.PRUNED)
    volumes = [round(volume, 5) for volume in problem.volumes(complete)]
    return End(volumes, round(trained, 5))


def _reports(row: Any) -> tuple[Report, ...]:
    return tuple(
        Report(0, share, {name: row[f"{name}@{n}"] for name in SIGNALS})
        for n, share in enumerate(SHARES, 1)
    )


def _trained(stopper: Stopper, others: list[Curve], whole: Curve) -> Curve:
    """A curve as far as the stopper lets it go."""
    for n in range(1, len(whole.reports) + 1):
        current = replace(whole, reports=whole.reports[:n])
        if not stopper.decide([*others, current], current).goes_on:
            return current
    return whole


def figures(names: Sequence[str], seeds: int, path: Path, workers: int) -> Json:
    """Shares of training saved, and hypervolume with stopping over that without.

    By table and stopper, with the hypervolume over that of a study without stopping that ends after
    as much training, too; above them the worst of the tables with `STOPPERS[0]`. Studies are kept
    at `path`.
    """
    every = product(names, ("none", *STOPPERS), range(seeds))
    wanted = [Order(name, stopper, seed, TRIALS) for name, stopper, seed in every]
    rows = kept(wanted, carry_out, path, workers)
    ends = {(r["table"], r["stopper"], r["seed"]): End(r["volumes"], r["trained"]) for r in rows}
    tables: dict[str, dict[str, Json]] = {}
    for name, stopper in product(names, STOPPERS):
        pairs = [(ends[name, stopper, seed], ends[name, "none", seed]) for seed in range(seeds)]
        tables.setdefault(name, {})[stopper] = _compared(pairs)
    worst = {
        key: min(each[STOPPERS[0]][key] for each in tables.values())
        for key in ("samples_saved", "hypervolume_ratio")
    }
    return {"trials": TRIALS, "stopper": STOPPERS[0], **worst, "tables": tables}


def carry_out(order: Order) -> Json:
    """One study, with one thread."""
    with one_thread():
        return asdict(study(order))


def _compared(pairs: Sequence[tuple[End, End]]) -> Json:
    """Studies with a stopper, each with the one without of the same seed."""
    told = {
        "samples_saved": [1 - a.trained / b.trained for a, b in pairs],
        "hypervolume_ratio": [a.volume / b.volume for a, b in pairs],
        "hypervolume_ratio_at_equal_training": [
            a.volume / b.volumes[min(len(b.volumes), round(a.trained)) - 1] for a, b in pairs
        ],
    }
    found: Json = {}
    for key, values in told.items():
        found[key] = round(float(np.mean(values)), 4)
        found[f"{key}_interval"] = interval(np.array(values), np.mean)
    return found
