"""What early stopping saves on a table, and what it costs in hypervolume."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from optuna.trial import TrialState

from autopeft.core.report import Report
from autopeft.search.bayes import BayesSampler
from autopeft.search.stopping import Curve, Fidelity, Never, Stopper, make_stopper
from benchmarks.search.figures import interval
from benchmarks.search.problem import Table, tabular
from benchmarks.search.race import N_START
from benchmarks.search.texts import N_VALIDATION, SHARES, tables

REDUCTION, TRIALS = 3.0, 100
SIGNALS = ("accuracy", "validation_loss", "train_loss")


@dataclass(frozen=True)
class End:
    """A study on a table.

    Attributes:
        volume: share of the greatest hypervolume that its complete trials reach.
        trained: shares of whole trainings, in all.
    """

    volume: float
    trained: float


def study(name: str, seed: int, n_trials: int, *, stops: bool) -> End:
    """One study with `bayes`, one trial after the other, each following its recorded curve."""
    problem, table = tabular(name), Table(tables() / f"{name}.csv")
    fidelity = Fidelity(SHARES, REDUCTION, problem.objectives, "auto", N_VALIDATION)
    stopper = make_stopper("halving", fidelity) if stops else Never()
    sampler = BayesSampler(
        problem.space, problem.objectives, problem.known, seed=seed, n_startup=N_START
    )
    directions = [objective.goal for objective in problem.objectives]
    record = optuna.create_study(sampler=sampler, directions=directions)
    curves: list[Curve] = []
    complete, trained = [], 0.0
    for number in range(n_trials):
        trial = record.ask(problem.space.distributions())
        config = problem.space.resolve(trial.params)
        values = problem.values(config)
        reports = _reports(table.by_key[config.key])
        costs = tuple(problem.losses(values)[1:])
        reached = _trained(stopper, curves, Curve(number, costs, reports))
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
    return End(problem.volumes(complete)[-1], trained)


def _reports(row: Any) -> tuple[Report, ...]:
    return tuple(
        Report(0, share, {name: row[f"{name}@{n}"] for name in SIGNALS})
        for n, share in enumerate(SHARES, 1)
    )


def _trained(stopper: Stopper, others: list[Curve], whole: Curve) -> Curve:
    """A curve as far as the stopper lets it go."""
    for n in range(1, len(whole.reports) + 1):
        current = Curve(whole.number, whole.known, whole.reports[:n])
        if not stopper.decide([*others, current], current).goes_on:
            return current
    return whole


def figures(names: list[str], seeds: int, n_trials: int = TRIALS) -> dict[str, Any]:
    """Shares of training saved, and hypervolume with stopping over that without, by table."""
    found: dict[str, Any] = {}
    for name in names:
        pairs = [
            [study(name, seed, n_trials, stops=stops) for stops in (True, False)]
            for seed in range(seeds)
        ]
        saved = np.array([1 - a.trained / b.trained for a, b in pairs])
        ratios = np.array([a.volume / b.volume for a, b in pairs])
        found[name] = {
            "samples_saved": float(saved.mean()),
            "hypervolume_ratio": float(ratios.mean()),
            "hypervolume_ratio_interval": interval(ratios, np.mean),
        }
    return {
        "trials": n_trials,
        "samples_saved": min(each["samples_saved"] for each in found.values()),
        "hypervolume_ratio": min(each["hypervolume_ratio"] for each in found.values()),
        "tables": found,
    }
