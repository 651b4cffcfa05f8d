"""Seconds of a proposal of `bayes` after many finished trials."""

from __future__ import annotations

import time
from collections.abc import Mapping
from statistics import median

import numpy as np

from autopeft.api.run import on_backbone
from autopeft.core.config import PeftConfig
from autopeft.objective.objective import load_objectives
from autopeft.search.bayes import BayesSampler
from autopeft.search.features import size_of
from autopeft.search.history import History, Observation
from autopeft.search.known import Known
from autopeft.space.settings import BackboneSettings
from autopeft.train.backbone import meta_backbone
from autopeft.train.known import Setting, known_quantities
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
        sampler = BayesSampler(space, objectives, known)
        rng = np.random.default_rng(0)
        configs = [space.sample(rng) for _ in range(count)]
        observed = tuple(Observation(c, (_loss(c, rng), *_known(c, known))) for c in configs)
        history = History(observed, (), frozenset(c.key for c in configs))
        seconds = []
        for number in range(repeats + 1):
            start = time.perf_counter()
            sampler.choose(history, np.random.default_rng(number), count)
            seconds.append(time.perf_counter() - start)
        found[str(count)] = round(median(seconds[1:]), 3)
    return found


def _loss(config: PeftConfig, rng: np.random.Generator) -> float:
    """A loss that larger configurations make smaller, with noise."""
    levels = [np.log2(1 + size_of(p)) * sum(p.layers) for p in config.placements]
    return float(0.15 + 0.2 * np.exp(-sum(levels) / 100) + rng.normal(0, 0.01)) - 1


def _known(config: PeftConfig, known: Mapping[str, Known]) -> list[float]:
    """Exact parameters, and memory as it is estimated, so that making it up takes little time."""
    memory = known["peak_memory"]
    quick = memory.value if memory.estimate is None else memory.estimate
    values = {"trainable_params": known["trainable_params"].value, "peak_memory": quick}
    return [o.loss(values[o.name](config)) for o in load_objectives(OBJECTIVES)[1:]]
