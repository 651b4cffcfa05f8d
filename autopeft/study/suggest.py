"""From a decision of the space to Optuna's sampler."""

from __future__ import annotations

from typing import Any

import optuna

from autopeft.space.dimension import Dimension


def suggest(trial: optuna.Trial, dimension: Dimension) -> Any:
    """The value that Optuna's sampler gives a decision."""
    distribution = dimension.distribution()
    if isinstance(distribution, optuna.distributions.CategoricalDistribution):
        return trial.suggest_categorical(dimension.name, distribution.choices)
    if isinstance(distribution, optuna.distributions.IntDistribution):
        return trial.suggest_int(
            dimension.name,
            distribution.low,
            distribution.high,
            step=distribution.step,
            log=distribution.log,
        )
    assert isinstance(distribution, optuna.distributions.FloatDistribution)
    return trial.suggest_float(
        dimension.name,
        distribution.low,
        distribution.high,
        step=distribution.step,
        log=distribution.log,
    )
