"""What the section `search` of a study file asks for beside a sampler."""

import pytest

import autopeft
from autopeft.api.earlier import observations
from autopeft.objective.objective import load_objectives
from tests import tiny


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A study whose front is trained again."""
    folder = tmp_path_factory.mktemp("first")
    search = {"sampler": "random", "n_trials": 3, "n_finalists": 2, "n_seeds": 2}
    return autopeft.run({**tiny.study(folder), "name": "first", "search": search})


def test_finalists_are_trained_again_and_reported_as_means(first):
    repeats = [t for t in first.trials if t.repeat_of is not None]
    assert 1 <= len(repeats) <= 2
    assert all(t.state == "complete" for t in repeats)
    means = [t for t in first.front.trials if t.n_seeds == 2]
    assert means
    for trial in means:
        own, again = (
            first.trials[trial.number],
            next(t for t in repeats if t.repeat_of == trial.number),
        )
        both = own.values["accuracy"], again.values["accuracy"]
        assert trial.values["accuracy"] == pytest.approx(sum(both) / 2)
        assert again.folder != own.folder
    assert autopeft.run(first.spec).trials == first.trials


def test_an_earlier_study_is_read_by_the_names_of_its_objectives(first):
    objectives = load_objectives("accuracy-params")
    (found,) = observations([first.spec], objectives)
    complete = [t for t in first.trials if t.state == "complete"]
    assert [o.config for o in found] == [t.config for t in complete]
    assert [o.losses[0] for o in found] == [-t.values["accuracy"] for t in complete]
    other = load_objectives([{"name": "f1", "goal": "maximize", "reference": 0}])
    with pytest.raises(autopeft.AutoPeftError, match=r"warm_start: 'first' measures accuracy"):
        observations([first.spec], other)


def test_a_study_begins_with_what_another_found(first, tmp_path):
    search = {"n_trials": 2, "warm_start": [first.spec]}
    study = {**tiny.study(tmp_path), "name": "second", "search": search}
    assert len(autopeft.run(study).trials) == 2
    missing = {**study, "name": "third", "search": {"warm_start": ["nowhere.yaml"]}}
    with pytest.raises(autopeft.AutoPeftError, match=r"search.warm_start: .*nowhere.yaml"):
        autopeft.run(missing)


def test_a_staged_study_runs(tmp_path):
    search = {"strategy": "staged", "n_trials": 2}
    outcome = autopeft.run({**tiny.study(tmp_path), "name": "staged", "search": search})
    assert len([t for t in outcome.trials if t.state == "complete"]) == 2
    with pytest.raises(autopeft.AutoPeftError, match=r"search.strategy: .*'stage'"):
        autopeft.run({**tiny.study(tmp_path), "name": "x", "search": {"strategy": "stage"}})
