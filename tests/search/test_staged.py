from __future__ import annotations

import optuna
import pytest

from autopeft.core.errors import StudyError
from autopeft.objective.objective import Objective, load_objectives
from autopeft.search.staged import N_EACH, StagedSampler, stages
from autopeft.space.space import SearchSpace
from tests.contracts import sampler as kit

OBJECTIVES = load_objectives("accuracy-params")
DOCUMENT = {
    "name": "stages",
    "layers": {
        "groups": 2,
        "pattern": {"choice": ["uniform", "increasing", "decreasing"]},
        "tuned": {"subset": "groups"},
    },
    "place": [
        {"method": "lora", "r": {"choice": [0, 4, 16]}},
        {"method": "bitfit", "where": {"subset": "groups"}},
    ],
    "train": {"learning_rate": {"float": [1e-4, 1e-2], "log": True}},
}
SPACE = SearchSpace.load(DOCUMENT).on(12)


def accuracy(params: dict[str, object]) -> float:
    """Best with decreasing groups, the second one alone, and the largest rank."""
    value = 0.1 * (params["layers.pattern"] == "decreasing")
    value += 0.2 * bool(params["layers.tuned@g2"]) - 0.2 * bool(params["layers.tuned@g1"])
    return (
        value + 0.01 * float(str(params["0.lora.r@g2"])) - 0.1 * bool(params["1.bitfit.where@g2"])
    )


def run(n: int, seed: int = 0) -> tuple[optuna.Study, StagedSampler]:
    sampler = StagedSampler(SPACE, OBJECTIVES, seed=seed)
    study = kit.new_study(sampler)
    for _ in range(n):
        trial = study.ask(fixed_distributions=SPACE.distributions())
        study.tell(trial, [accuracy(trial.params), 1.0])
    return study, sampler


def test_stages_follow_the_design_spaces() -> None:
    found = [[d.name for d in stage] for stage in StagedSampler(SPACE, OBJECTIVES).stages]
    assert found == [
        ["layers.pattern"],
        ["layers.tuned@g1", "layers.tuned@g2"],
        ["0.lora.r@g1", "1.bitfit.where@g1"],
        ["0.lora.r@g2", "1.bitfit.where@g2"],
        ["train.learning_rate"],
    ]
    s4 = SearchSpace.load("s4").on(12)
    names = [stage[0].name for stage in stages(list(s4.dimensions.values()), s4.names)]
    assert names[:3] == ["layers.pattern", "budget.allocation", "layers.tuned@g1"]
    assert len(names) == 3 + 4


def test_each_stage_is_fixed_by_its_averages() -> None:
    first = 3 * N_EACH
    study, sampler = run(first)
    assert set(sampler.fixed(study.trials[: first - 1])) == set()
    assert sampler.fixed(study.trials) == {"layers.pattern": "decreasing"}
    study, sampler = run(60)
    fixed = sampler.fixed(study.trials)
    assert fixed["layers.tuned@g2"] is True
    assert fixed["layers.tuned@g1"] is False
    assert fixed["0.lora.r@g2"] == 16
    assert fixed["1.bitfit.where@g2"] is False
    assert all(t.params["layers.pattern"] == "decreasing" for t in study.trials[first:30])


def test_once_all_is_fixed_one_decision_is_changed() -> None:
    study, sampler = run(90)
    before = sampler.fixed(study.trials[:89])
    assert len(before) == len(SPACE.dimensions)
    last = study.trials[-1].params
    assert sum(last[name] != value for name, value in before.items()) == 1


def test_trials_without_values_do_not_count() -> None:
    study, sampler = run(3 * N_EACH)
    trials = study.trials
    assert len(sampler.fixed(trials)) == 1
    trials[0].values = [float("nan"), 1.0]
    assert sampler.fixed([*trials, kit.foreign()]) == {}


def test_something_must_be_measured() -> None:
    params = Objective("trainable_params", "minimize", known=True)
    with pytest.raises(StudyError, match="needs an objective that training measures"):
        StagedSampler(SPACE, [params])
