"""Trials that come with autopeft, so that a first search begins with what tends to work."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from importlib.resources import files
from typing import Any

from autopeft.core.config import PeftConfig
from autopeft.objective.objective import Objective
from autopeft.search.history import Observation

Trials = tuple[tuple[PeftConfig, Mapping[str, float]], ...]

_FOLDER = files("autopeft.search") / "experience"


def experience(
    objectives: Sequence[Objective], n_layers: int
) -> tuple[tuple[Observation, ...], ...]:
    """Of each data set the trials as observations, those of an objective it lacks NaN.

    Args:
        objectives: in whose order the losses are.
        n_layers: of the backbone that is tuned; configurations are stretched to it.
    """
    return tuple(
        tuple(
            Observation(
                _stretched(config, study_layers, n_layers),
                tuple(o.loss(metrics.get(o.name, math.nan)) for o in objectives),
            )
            for config, metrics in trials
        )
        for study_layers, trials in _studies()
    )


@cache
def _studies() -> tuple[tuple[int, Trials], ...]:
    """Layers of the backbone, and configurations with their metrics, of each study."""
    paths = sorted(_FOLDER.iterdir(), key=lambda path: path.name)
    documents = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    return tuple((d["n_layers"], tuple(_trials(d))) for d in documents)


def _trials(document: Mapping[str, Any]) -> Iterator[tuple[PeftConfig, Mapping[str, float]]]:
    for config, values in document["trials"]:
        yield PeftConfig.from_dict(config), dict(zip(document["metrics"], values, strict=True))


def _stretched(config: PeftConfig, n_from: int, n_to: int) -> PeftConfig:
    """The configuration with the same placements at the same relative depths."""
    placements = [
        replace(p, layers=tuple(at for at in range(n_to) if at * n_from // n_to in p.layers))
        for p in config.placements
    ]
    return replace(config, placements=tuple(p for p in placements if p.layers))
