"""Searches of mixes: uniform, the one that was published, and the package as it comes."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from statistics import fmean
from typing import Any

import numpy as np
import optuna
from optuna.samplers import RandomSampler

from autopeft.api.outcome import Outcome
from autopeft.api.run import run
from autopeft.objective.objective import load_objectives
from autopeft.report.seeds import folded
from autopeft.study.repeats import fresh
from autopeft.study.spec import FidelitySection, Search
from benchmarks.search.race import Axes
from benchmarks.search.saas_sampler import SaasSampler
from benchmarks.value.bench import DEVICE, EPOCHS, MODEL, Bench, Trial
from benchmarks.value.single import proposed

SPACE = "layer-mix"


def random(bench: Bench, budget: int, seed: int) -> list[Trial]:
    """Uniform draws."""
    space, rng = bench.space(SPACE), np.random.default_rng(seed)
    return [bench.trained(space.draw(rng).config, seed) for _ in range(budget)]


def autopeft_paper(bench: Bench, budget: int, seed: int) -> list[Trial]:
    """The space and the optimizer of AutoPEFT; the first half of the budget is random."""
    objectives = load_objectives("accuracy-params")
    axes = Axes(bench.space("autopeft"), plain=False)
    study = optuna.create_study(
        sampler=RandomSampler(seed), directions=[o.goal for o in objectives]
    )
    n_random = budget // 2
    started = proposed(study, axes, objectives, bench, n_random, seed)
    study.sampler = SaasSampler(objectives, axes.distributions(), seed)
    return started + proposed(study, axes, objectives, bench, budget - n_random, seed)


def autopeft(bench: Bench, budget: int, seed: int) -> list[Trial]:
    """The package as it comes."""
    with tempfile.TemporaryDirectory() as folder:
        return list(trials_of(run(study_of(bench, budget, seed, folder))))


def study_of(bench: Bench, budget: int, seed: int, folder: str) -> dict[str, Any]:
    """The study whose trials and repeats are at most so many full trainings; files in a folder.

    Repeats that would take more than half of them are left out.
    """
    default = Search()
    shorter, longer = (n / EPOCHS for n in FidelitySection(epochs=EPOCHS).lengths)
    repeats = default.n_seeds * (shorter + default.n_finalists * longer)
    repeats = repeats if 2 * repeats <= budget else 0
    return {
        "name": "value",
        "model": MODEL,
        "task": bench.task.model_dump(include={"data", "max_length"}),
        "space": SPACE,
        "objectives": "accuracy-params",
        "search": {
            "n_trials": int(budget - repeats),
            "n_finalists": default.n_finalists if repeats else 0,
            "seed": seed,
        },
        "fidelity": {"epochs": EPOCHS},
        "engine": {"resources": {"cpu": 1}},
        "output": folder,
        "device": DEVICE,
    }


def trials_of(outcome: Outcome) -> Iterator[Trial]:
    """The trials of a study; those that it repeated have the means over their fresh seeds."""
    again = fresh(outcome.trials)
    for trial in folded(outcome.trials):
        runs = [t for t in outcome.trials if t.reports and trial.number in (t.number, t.repeat_of)]
        if runs and trial.repeat_of is None:
            ended = [run.reports[-1].metrics for run in runs if run.state == "complete"]
            yield Trial(
                config=trial.config.to_dict(),
                params=int(trial.known["trainable_params"]),
                accuracy=trial.values.get("accuracy"),
                loss=fmean(each["validation_loss"] for each in ended) if ended else None,
                epochs=sum(run.epochs for run in runs),
                trainings=len(runs),
                length=again.get(trial.number, runs)[-1].epochs,
            )
