"""Seconds of a proposal of `bayes` after many trials, most of which were stopped early.

`python -m benchmarks.search.speed` writes them into `benchmarks/results/search.json`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from autopeft.api.configurations import on_backbone
from autopeft.core.config import PeftConfig
from autopeft.core.settings import BackboneSettings
from autopeft.core.size import size_of
from autopeft.memory.quantities import Setting, known_quantities
from autopeft.model.backbone import meta_backbone
from autopeft.objective.known import estimate
from autopeft.objective.objective import load_objectives
from autopeft.objective.quantity import Known
from autopeft.search.bayes import BayesSampler
from autopeft.search.features import features
from autopeft.space.bound import BoundSpace
from benchmarks.search.measure import MODEL

RESULTS = Path(__file__).parent.parent / "results" / "search.json"
SPACE, OBJECTIVES = "layer-mix", "accuracy-params-memory"
COUNTS = (200, 1_000, 5_000)
REPEATS, TOKENS = 5, 64
RUNGS, STOPPED = (1.0, 3.0, 9.0), 0.7
"""Epochs at which trials report, and the share that ends at one of the first two."""

N_TRACED = 64
"""Trials whose memory is traced; that of the others is made up from theirs."""


def suggest_seconds(counts: Sequence[int] = COUNTS, repeats: int = REPEATS) -> dict[str, float]:
    """By trials, the processor's seconds of a proposal: the median of those after the first.

    The space has 24 decisions and a learning rate, the objectives are an accuracy that is made up,
    parameters and memory. A proposal takes one thread, so that on an idle machine these are the
    seconds that pass.
    """
    backbone = meta_backbone(MODEL, BackboneSettings(), head="text-classification", device="cpu")
    space = on_backbone(SPACE, backbone)
    known = known_quantities(Setting(backbone, TOKENS, "cpu"))
    objectives = load_objectives(OBJECTIVES)
    trials = list(_trials(space, known, max(counts)))
    seconds = {}
    for count in counts:
        study = optuna.create_study(
            sampler=BayesSampler(space, objectives, known),
            directions=[objective.goal for objective in objectives],
        )
        study.add_trials(trials[:count])
        taken = [_seconds(study, space) for _ in range(repeats + 1)]
        seconds[str(count)] = round(median(taken[1:]), 3)
    return seconds


def _seconds(study: optuna.Study, space: BoundSpace) -> float:
    """Of one proposal, which stays pending."""
    start = time.process_time()
    trial = study.ask(space.distributions())
    taken = time.process_time() - start
    if "fallback" in trial.user_attrs:
        raise RuntimeError(trial.user_attrs["fallback"])
    return taken


def _trials(space: BoundSpace, known: Mapping[str, Known], count: int) -> Iterator[FrozenTrial]:
    """Trials as a study records them."""
    rng = np.random.default_rng(0)
    drawn = [space.draw(rng) for _ in range(count)]
    memories = _memories([each.config for each in drawn], known["peak_memory"], space.n_layers)
    for each, memory in zip(drawn, memories, strict=True):
        config, point = each.config, each.point
        levels = [np.log2(1 + size_of(p)) * sum(p.layers) for p in config.placements]
        last = float(0.85 - 0.2 * np.exp(-sum(levels) / 100) + rng.normal(0, 0.01))
        costs = {
            "trainable_params": float(known["trainable_params"].value(config)),
            "peak_memory": float(memory),
        }
        is_stopped = rng.random() < STOPPED
        reached = RUNGS[: 1 + int(rng.integers(2))] if is_stopped else RUNGS
        yield optuna.create_trial(
            state=TrialState.PRUNED if is_stopped else TrialState.COMPLETE,
            params=point,
            distributions={name: space.dimensions[name].distribution() for name in point},
            values=None if is_stopped else [last, *costs.values()],
            user_attrs={
                "config": config.to_dict(),
                "known": costs,
                "reports": [_report(rung, last, rng) for rung in reached],
            },
        )


def _memories(
    configs: Sequence[PeftConfig], memory: Known, n_layers: int
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Bytes, traced of some and nearly right of the others."""
    traced = np.array([memory.value(config) for config in configs[:N_TRACED]])
    rows = features(configs, n_layers)
    return np.append(traced, estimate(rows[: len(traced)], traced, rows[len(traced) :]))


def _report(rung: float, last: float, rng: np.random.Generator) -> dict[str, Any]:
    """Of a trial that will have the accuracy `last`."""
    accuracy = last - 0.1 * (1 - (rung / RUNGS[-1]) ** 0.3) + float(rng.normal(0, 0.01))
    losses = {name: 1 - accuracy + float(rng.normal(0, 0.005)) for name in ("a", "b")}
    metrics = {
        "accuracy": accuracy,
        "validation_loss": losses["a"],
        "train_loss": losses["b"],
        "train_seconds": 10 * rung,
        "eval_seconds": 1.0,
    }
    return {"step": round(100 * rung), "fidelity": rung, "metrics": metrics}


def main() -> None:
    document = json.loads(RESULTS.read_text(encoding="utf-8"))
    document["suggest_seconds"] = suggest_seconds()
    RESULTS.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(document["suggest_seconds"], indent=1))


if __name__ == "__main__":
    main()
