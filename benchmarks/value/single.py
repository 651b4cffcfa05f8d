"""What a practitioner does without a search engine for mixes: one method, tuned."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any

import optuna
from optuna.samplers import TPESampler
from optuna.study import Study
from optuna.trial import TrialState

from autopeft.core.catalog import Reference, read
from autopeft.core.config import LEARNING_RATE
from autopeft.core.settings import TrainSettings
from autopeft.objective.objective import Objective, load_objectives
from benchmarks.search.race import Axes
from benchmarks.value.bench import Bench, Trial

optuna.logging.set_verbosity(optuna.logging.ERROR)

_RATE = {"learning_rate": {"float": [2e-4, 5e-3], "log": True}}

_ATTENTION, _FFN = ["q", "k", "v", "o"], ["up", "down"]

LORA: Mapping[str, Any] = {
    "name": "tuned lora",
    "place": [
        {
            "method": "lora",
            "targets": {"choice": [["q", "v"], _ATTENTION, _FFN, _ATTENTION + _FFN]},
            "r": {"choice": [4, 8, 16, 32, 64]},
        }
    ],
    "train": _RATE,
}

ADAPTER: Mapping[str, Any] = {
    "name": "tuned adapter",
    "place": [
        {
            "method": "adapter",
            "form": {"choice": ["sequential", "parallel"]},
            "at": {"choice": ["ffn", "both", "attention"]},
            "size": {"choice": [16, 32, 64, 128, 256]},
        }
    ],
    "train": _RATE,
}

BASELINES = ("lora", "houlsby", "pfeiffer", "bitfit", "prefix")
FACTORS = (1.0, 0.5, 2.0, 0.25)
"""Of the learning rates of a baseline."""

ACCURACY = load_objectives("accuracy-params")[:1]


def tuned_lora(bench: Bench, budget: int, seed: int) -> list[Trial]:
    """LoRA: rank, targets and learning rate by Optuna's estimator."""
    return _tuned(LORA, bench, budget, seed)


def tuned_adapter(bench: Bench, budget: int, seed: int) -> list[Trial]:
    """Adapters: form, place, size and learning rate by Optuna's estimator."""
    return _tuned(ADAPTER, bench, budget, seed)


def _tuned(space: Reference, bench: Bench, budget: int, seed: int) -> list[Trial]:
    study = optuna.create_study(sampler=TPESampler(seed=seed), direction="maximize")
    axes = Axes(bench.space(space), plain=True)
    return proposed(study, axes, ACCURACY, bench, budget, seed)


def proposed(
    study: Study,
    axes: Axes,
    objectives: tuple[Objective, ...],
    bench: Bench,
    n_trials: int,
    seed: int,
) -> list[Trial]:
    """So many more trials of a study, told to it as they end."""
    trials = []
    for _ in range(n_trials):
        asked = study.ask(axes.distributions())
        trial = bench.trained(axes.config(asked.params), seed)
        trials.append(trial)
        if trial.accuracy is None:
            study.tell(asked, state=TrialState.FAIL)
        else:
            values = {"accuracy": trial.accuracy, "trainable_params": float(trial.params)}
            study.tell(asked, [values[o.name] for o in objectives])
    return trials


def baselines(bench: Bench, budget: int, seed: int) -> list[Trial]:
    """The baselines of the catalog with several learning rates."""
    chosen = [*product(FACTORS, BASELINES)][:budget]
    return [
        bench.trained(bench.space(faster(name, factor)).resolve({}), seed)
        for factor, name in chosen
    ]


def faster(name: str, factor: float) -> dict[str, Any]:
    """The document of a baseline with every learning rate times a factor."""
    document, _ = read("search_spaces", name)
    default = {LEARNING_RATE: TrainSettings().learning_rate}
    document["train"] = default | document.get("train", {})
    for part in (document["train"], *document["place"]):
        if LEARNING_RATE in part:
            part[LEARNING_RATE] *= factor
    return document
