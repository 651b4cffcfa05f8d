"""What early stopping saves on a table, and what it costs in hypervolume."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import optuna
from optuna.trial import TrialState

from autopeft.core.report import Report
from autopeft.search.stoppers import Fidelity, make_stopper
from autopeft.search.stopping import Curve, Stopper
from autopeft.search.surrogate import one_thread
from benchmarks.search.figures import interval
from benchmarks.search.peers import PEERS
from benchmarks.search.problem import Table, tabular
from benchmarks.search.race import starts
from benchmarks.search.texts import N_VALIDATION, SHARES, tables

REDUCTION, TRIALS = 3.0, 100
STOPPERS = ("model", "halving")
Json = dict[str, Any]
SIGNALS = ("accuracy", "validation_loss", "train_loss")


@dataclass(frozen=True)
class End:
    """A study on a table.

    Attributes:
        volumes: share of the greatest hypervolume after every complete trial.
        trained: shares of whole trainings, in all.
    """

    volumes: tuple[float, ...]
    trained: float

    @property
    def volume(self) -> float:
        """What is reached."""
        return self.volumes[-1]


def study(name: str, seed: int, n_trials: int, stopped_by: str) -> End:
    """One study with `bayes`, one trial after the other, each following its recorded curve.

    It begins with the starting points of the seed.
    """
    problem, table = tabular(name), Table(tables() / f"{name}.csv")
    fidelity = Fidelity(SHARES, REDUCTION, problem.objectives, "auto", N_VALIDATION)
    stopper, sampler = make_stopper(stopped_by, fidelity), PEERS["bayes"].make(problem, seed)
    directions = [objective.goal for objective in problem.objectives]
    record = optuna.create_study(sampler=sampler, directions=directions)
    for start in starts(problem, np.random.default_rng(seed)):
        record.enqueue_trial(dict(problem.space.assign(start) or {}))
    curves: list[Curve] = []
    complete, trained = [], 0.0
    for number in range(n_trials):
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
    return End(tuple(problem.volumes(complete)), trained)


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


def figures(names: Sequence[str], seeds: int, workers: int, n_trials: int = TRIALS) -> Json:
    """Shares of training saved, and hypervolume with stopping over that without.

    By table and stopper, with the hypervolume over that of a study without stopping that ends after
    as much training, too; above them the worst of the tables with `STOPPERS[0]`.
    """
    wanted = list(product(names, ("none", *STOPPERS), range(seeds)))
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        ends = dict(
            zip(wanted, pool.map(partial(_end, n_trials), wanted, chunksize=1), strict=True)
        )
    tables: dict[str, dict[str, Json]] = {}
    for name, stopper in product(names, STOPPERS):
        pairs = [(ends[name, stopper, seed], ends[name, "none", seed]) for seed in range(seeds)]
        tables.setdefault(name, {})[stopper] = _compared(pairs)
    worst = {
        key: min(each[STOPPERS[0]][key] for each in tables.values())
        for key in ("samples_saved", "hypervolume_ratio")
    }
    return {"trials": n_trials, "stopper": STOPPERS[0], **worst, "tables": tables}


def _end(n_trials: int, wanted: tuple[str, str, int]) -> End:
    """With one thread."""
    name, stopper, seed = wanted
    with one_thread():
        return study(name, seed, n_trials, stopper)


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
