"""Gradients before any training, which a worker computes once and the record keeps."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import optuna

from autopeft.core.config import PeftConfig
from autopeft.engine.engine import described
from autopeft.search.sensitivity import Sensitivity, probes
from autopeft.space.bound import BoundSpace
from autopeft.train.trainer import Trainer

ATTRIBUTE = "sensitivity"
"""Of the record."""

Rows = Sequence[Mapping[str, Any]]
Ask = Callable[[Callable[[Trainer], Rows]], Rows]


def sensitivity_of(
    record: optuna.Study, space: BoundSpace, others: Iterable[PeftConfig], ask: Ask
) -> Sensitivity | None:
    """What the record keeps, or else a worker now finds; None, and a warning, where that fails.

    Args:
        record: of the study.
        space: whose kinds of placements are probed.
        others: configurations whose kinds are probed besides.
        ask: puts a question to a worker.
    """
    rows = record.user_attrs.get(ATTRIBUTE)
    if rows is None:
        try:
            rows = ask(partial(probed, configs=probes(space, others)))
        except Exception as error:  # a search does without, and trials record their failures
            warnings.warn(f"proposals know no gradients, for {described(error)}", stacklevel=2)
            return None
        record.set_user_attr(ATTRIBUTE, rows)
    return read_sensitivity(rows)


def probed(trainer: Trainer, configs: Sequence[PeftConfig]) -> Rows:
    """What configurations of `probes` yield, as JSON.

    Raises:
        FloatingPointError: a gradient that is not finite.
    """
    rows = []
    for config in configs:
        squares = trainer.squared_gradients(config)
        if not all(map(math.isfinite, squares)):
            (placement,) = config.placements
            raise FloatingPointError(f"a gradient of {placement.method} is not finite")
        told = [float(f"{square:.4g}") for square in squares]
        rows.append({"config": config.to_dict(), "squares": told})
    return rows


def read_sensitivity(rows: Rows) -> Sensitivity:
    """From what `probed` gives."""
    return Sensitivity.of((PeftConfig.from_dict(row["config"]), row["squares"]) for row in rows)
