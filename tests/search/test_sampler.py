from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.samplers import BaseSampler, RandomSampler

from autopeft.core.errors import StudyError
from autopeft.search.sampler import SAMPLERS, make_sampler
from tests.contracts import sampler as kit

optuna.logging.set_verbosity(optuna.logging.ERROR)


@pytest.mark.parametrize("check", kit.CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("names", [*SAMPLERS, ("random", "nsga2", "tpe")], ids=str)
def test_contract(names: str | tuple[str, ...], check: Callable[[kit.Make], None]) -> None:
    check(partial(make_sampler, names))


MODELS = ("bayes", "gp", "nsga2", "tpe")
"""One of each family; what is random in the others is drawn by the same generators."""


@pytest.fixture(scope="module")
def elsewhere() -> dict[str, Any]:
    """The points of samplers in another process with another hash seed."""
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONHASHSEED": "4711", "PYTHONPATH": str(root)}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.contracts.sampler", *MODELS],
        env=environment,
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


@pytest.mark.parametrize("name", MODELS)
def test_another_process_asks_for_the_same_points(name: str, elsewhere: dict[str, Any]) -> None:
    assert elsewhere[name] == kit.points(SAMPLERS[name])[: kit.N_FEW]


class Restarting(RandomSampler):
    """Begins its stream of random numbers anew."""

    def __init__(self, problem: kit.Problem) -> None:
        super().__init__(seed=problem.seed)


class Stubborn(Restarting):
    """Always asks for the same point."""

    def sample_independent(self, study: Any, trial: Any, name: str, distribution: Any) -> Any:
        return distribution.to_external_repr(
            distribution.to_internal_repr(getattr(distribution, "low", None))
            if hasattr(distribution, "low")
            else 0
        )


class Strict(Restarting):
    """Believes that all trials before it succeeded."""

    def sample_independent(self, study: Any, trial: Any, name: str, distribution: Any) -> Any:
        assert all(t.values for t in study.trials[: trial.number])
        return super().sample_independent(study, trial, name, distribution)


@pytest.mark.parametrize(
    ("broken", "check"),
    [(Restarting, kit.check_pure), (Stubborn, kit.check_legal), (Strict, kit.check_tolerant)],
)
def test_the_contract_finds_broken_samplers(
    broken: Callable[[kit.Problem], BaseSampler], check: Callable[[kit.Make], None]
) -> None:
    with pytest.raises(AssertionError):
        check(broken)


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(StudyError, match=r"unknown sampler 'bayesian'.*did you mean 'bayes'"):
        make_sampler("bayesian", kit.problem())


@pytest.mark.parametrize(("name", "n"), [("gp", 11), ("nsga2", 18), ("nsga3", 18), ("tpe", 11)])
def test_a_baseline_without_parameters_does_not_blind_a_sampler(name: str, n: int) -> None:
    """Optuna models only decisions that all complete trials hold."""
    problem = kit.problem()
    study = kit.new_study(SAMPLERS[name](problem))
    study.add_trial(kit.foreign())
    for _ in range(n):
        trial, config = kit.ask(study, problem.space)
        study.tell(trial, [kit.accuracy(config), kit.cost(config)])
    bare = kit.points(SAMPLERS["random"], n=n + 1)
    assert study.trials[-1].params != bare[-1]
