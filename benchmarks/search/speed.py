"""Seconds of a proposal of `bayes` after many finished trials."""

from __future__ import annotations

import time
from collections.abc import Mapping
from statistics import median

import numpy as np
import optuna
from optuna.trial import FrozenTrial

from autopeft.api.run import on_backbone
from autopeft.core.methods import size_of
from autopeft.core.settings import BackboneSettings
from autopeft.memory.quantities import Setting, known_quantities
from autopeft.model.backbone import meta_backbone
from autopeft.objective.known import Known
from autopeft.objective.objective import load_objectives
from autopeft.search.bayes import BayesSampler
from autopeft.space.bound import BoundSpace
from benchmarks.search.measure import MODEL

SPACE, OBJECTIVES = "layer-mix", "accuracy-params-memory"
COUNTS = (50, 200, 1_000, 5_000)
REPEATS, TOKENS = 5, 64


def suggest_seconds(counts: tuple[int, ...] = COUNTS, repeats: int = REPEATS) -> dict[str, float]:
    """By finished trials, the median over proposals after the first, which traces memory.

    The space has 24 decisions and a learning rate, the objectives are an accuracy that is made up,
    parameters and memory.
    """
    backbone = meta_backbone(
        MODEL, BackboneSettings(), task_type="text-classification", device="cpu"
    )
    space = on_backbone(SPACE, backbone)
    known = known_quantities(Setting(backbone, TOKENS, "cpu"))
    objectives = load_objectives(OBJECTIVES)
    found = {}
    for count in counts:
        rng = np.random.default_rng(0)
        study = optuna.create_study(
            sampler=BayesSampler(space, objectives, known),
            directions=[objective.goal for objective in objectives],
        )
        study.add_trials([_trial(space, known, rng) for _ in range(count)])
        seconds = []
        for _ in range(repeats + 1):
            start = time.perf_counter()
            trial = study.ask(space.distributions())
            seconds.append(time.perf_counter() - start)
            if "fallback" in trial.user_attrs:
                raise RuntimeError(trial.user_attrs["fallback"])
        found[str(count)] = round(median(seconds[1:]), 3)
    return found


def _trial(space: BoundSpace, known: Mapping[str, Known], rng: np.random.Generator) -> FrozenTrial:
    """A finished trial as a study records it, with a memory that is estimated."""
    config, point = space.draw(rng)
    levels = [np.log2(1 + size_of(p)) * sum(p.layers) for p in config.placements]
    accuracy = float(0.85 - 0.2 * np.exp(-sum(levels) / 100) + rng.normal(0, 0.01))
    exact = {name: known[name] for name in ("trainable_params", "peak_memory")}
    costs = {name: (each.estimate or each.value)(config) for name, each in exact.items()}
    return optuna.create_trial(
        params=point,
        distributions={name: space.dimensions[name].distribution() for name in point},
        values=[accuracy, *costs.values()],
        user_attrs={"config": config.to_dict(), "known": costs},
    )
