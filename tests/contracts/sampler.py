"""What every sampler owes a study; run over the whole registry."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

import numpy as np
import optuna
from optuna.samplers import BaseSampler
from optuna.trial import TrialState

from autopeft.core.config import PeftConfig
from autopeft.objective.objective import load_objectives
from autopeft.objective.quantity import Known
from autopeft.search.sampler import SAMPLERS, Problem
from autopeft.space.bound import BoundSpace
from autopeft.space.space import SearchSpace

Make = Callable[[Problem], BaseSampler]

N_TRIALS = 18
"""More than one generation of the genetic samplers."""

N_FEW = 12
"""Two more than the start-up phase of any model."""

SPACE = {
    "name": "contract",
    "layers": {"groups": 2},
    "place": [
        {"choice": [
            {"method": "lora", "r": {"choice": [0, 2, 8, 32]}, "targets": ["q", "v"]},
            {"method": "adapter", "size": {"int": [4, 64], "log": True}},
        ]},
        {"method": "bitfit", "where": {"subset": "groups"}},
    ],
    "train": {"learning_rate": {"float": [1e-4, 1e-2], "log": True}},
}  # fmt: skip


def problem(seed: int = 0) -> Problem:
    """Two objectives, one of them known, on a conditional space over six layers."""
    return Problem(
        SearchSpace.load(SPACE).on(6),
        load_objectives("accuracy-params"),
        {"trainable_params": Known(cost)},
        {},
        seed,
    )


def cost(config: PeftConfig) -> float:
    """Something like a number of parameters."""
    sizes = {"r": 768.0, "size": 768.0}
    return sum(
        len(p.layers) * sum(sizes[k] * v for k, v in p.options if k in sizes) + 1000 * len(p.layers)
        for p in config.placements
    )


def accuracy(config: PeftConfig) -> float:
    """More is better, at the top and at a learning rate of 1e-3 above all."""
    depth = sum(np.log2(2 + cost(PeftConfig.of([p]))) * sum(p.layers) for p in config.placements)
    return float(
        0.9
        - 0.3 * np.exp(-depth / 300)
        - 0.02 * (np.log10(dict(config.train)["learning_rate"]) + 3) ** 2
    )


def new_study(sampler: BaseSampler) -> optuna.Study:
    """A study of the problem's objectives."""
    return optuna.create_study(sampler=sampler, directions=["maximize", "minimize"])


def ask(study: optuna.Study, space: BoundSpace) -> tuple[optuna.Trial, PeftConfig]:
    """The next trial and its configuration; raises where that is no point of the space."""
    trial = study.ask(fixed_distributions=space.distributions())
    for name, value in trial.params.items():
        distribution = space.distributions()[name]
        assert distribution._contains(distribution.to_internal_repr(value)), (name, value)
    config = space.resolve(trial.params)
    trial.set_user_attr("config", config.to_dict())
    return trial, config


@cache
def points(make: Make, seed: int = 0, *, fresh: bool = False, n: int = N_TRIALS) -> list[Any]:
    """The points of a study; with `fresh`, every trial is asked of a new sampler."""
    setting = problem(seed)
    study, asked = new_study(make(setting)), []
    for _ in range(n):
        if fresh:
            study.sampler = make(setting)
        trial, config = ask(study, setting.space)
        asked.append(trial.params)
        study.tell(trial, [accuracy(config), cost(config)])
    return asked


def check_legal(make: Make) -> None:
    """Every point is one of the space, and not all are the same."""
    drawn = points(make)
    assert len({json.dumps(point) for point in drawn}) > N_TRIALS // 2


def check_pure(make: Make) -> None:
    """The seed and the history alone decide, not the life of the sampler; seeds differ."""
    assert points(make)[:N_FEW] == points(make, n=N_FEW, fresh=True)
    assert points(make, 1, n=2) != points(make, 2, n=2)


def check_tolerant(make: Make) -> None:
    """Pending, failed, stopped, rejected, foreign and bare trials do no harm."""
    setting = problem()
    space = setting.space
    study = new_study(make(setting))
    for state in [TrialState.COMPLETE] * 10 + [TrialState.FAIL, TrialState.PRUNED]:
        trial, config = ask(study, space)
        if state == TrialState.PRUNED:
            metrics = {"accuracy": accuracy(config), "validation_loss": 1.0}
            trial.set_user_attr("reports", [{"step": 1, "fidelity": 1.0, "metrics": metrics}])
        values = [accuracy(config), cost(config)] if state == TrialState.COMPLETE else None
        study.tell(trial, values, state=state)
    study.add_trial(foreign())
    pending = [ask(study, space)[1] for _ in range(2)]
    study.ask()
    later = [ask(study, space)[1] for _ in range(3)]
    assert all(config.train for config in (*pending, *later))


def foreign() -> optuna.trial.FrozenTrial:
    """A baseline outside the space: it has a configuration but no parameters."""
    config = {"place": [{"method": "prefix", "length": 10, "where": [0, 1, 2, 3, 4, 5]}]}
    return optuna.create_trial(values=[0.8, 1e4], user_attrs={"config": config})


def check_blind(make: Make) -> None:
    """What finalists reach in trainings of another length changes no proposal."""
    setting, proposed = problem(), []
    for state, values in ((TrialState.FAIL, None), (TrialState.COMPLETE, [0.99, 1.0])):
        study = new_study(make(setting))
        for _ in range(N_FEW):
            trial, config = ask(study, setting.space)
            study.tell(trial, [accuracy(config), cost(config)])
        first = study.trials[0]
        repeat = optuna.create_trial(
            state=state,
            values=values,
            params=first.params,
            distributions=first.distributions,
            user_attrs={**first.user_attrs, "repeat_of": 0},
        )
        study.add_trial(repeat)
        proposed.append(ask(study, setting.space)[0].params)
    assert proposed[0] == proposed[1]


CHECKS = (check_legal, check_pure, check_tolerant, check_blind)


def main(names: Iterable[str]) -> None:
    """Prints the points of samplers as JSON, for comparison with another process."""
    print(json.dumps({name: points(SAMPLERS[name], n=N_FEW) for name in names}))


if __name__ == "__main__":
    main(sys.argv[1:])
