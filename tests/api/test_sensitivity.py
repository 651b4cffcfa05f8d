"""Gradients before training: asked of a worker once, kept in the record, done without."""

import math
import warnings

import optuna
import pytest

import autopeft
from autopeft.api.run import prepare
from autopeft.api.sensitivity import ATTRIBUTE, probed, read_sensitivity, sensitivity_of
from autopeft.core.config import PeftConfig
from autopeft.engine.inline import Inline
from autopeft.search.sensitivity import probes
from autopeft.train.trainer import Trainer
from tests import tiny


def study(folder, **search):
    search = {"sampler": "bayes", "n_trials": 3, "baselines": ["head-only", "pfeiffer"], **search}
    return {**tiny.study(folder), "name": "probed", "search": search}


def kept(document):
    record = optuna.load_study(study_name="probed", storage=document["storage"])
    return record.user_attrs.get(ATTRIBUTE)


def never(question):
    raise AssertionError("the record holds the answer")


def test_gradients_of_space_and_baselines_are_kept_and_read_again(tmp_path):
    document = study(tmp_path)
    autopeft.run(document)
    rows, prepared = kept(document), prepare(document)
    assert {row["config"]["place"][0]["method"] for row in rows} == {"lora", "adapter"}
    assert all(square > 0 for row in rows for square in row["squares"])
    record = optuna.load_study(study_name="probed", storage=document["storage"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = sensitivity_of(record, prepared.space, (), never)
        proposer = prepared.open(never).record.sampler
    assert found == read_sensitivity(rows)
    assert proposer._foreknowledge.sensitivity == found
    direct = Trainer(document["model"], prepared.task, device="cpu")
    assert probed(direct, probes(prepared.space, prepared.baselines.values())) == rows


def test_a_cluster_finds_the_same(tmp_path):
    document = study(tmp_path, n_trials=1)
    autopeft.run(document)
    (tmp_path / "ray").mkdir()
    remote = {**study(tmp_path / "ray", n_trials=1), "engine": {"type": "ray"}}
    autopeft.run(remote)
    assert kept(remote) == kept(document)


@pytest.mark.parametrize("search", [{"sensitivity": False}, {"sampler": "random"}])
def test_nobody_is_asked_where_gradients_are_not_wanted(search, tmp_path):
    document = study(tmp_path, n_trials=1, **search)
    autopeft.run(document)
    assert kept(document) is None


def test_a_search_does_without_gradients_that_cannot_be_computed(tmp_path, monkeypatch):
    def ask(self, make, question):
        raise MemoryError("not even for a single pass")

    monkeypatch.setattr(Inline, "ask", ask)
    document = study(tmp_path)
    with pytest.warns(UserWarning, match="know no gradients, for MemoryError: not even"):
        outcome = autopeft.run(document)
    assert sum(trial.state == "complete" for trial in outcome.trials) == 3
    assert kept(document) is None


def test_a_gradient_that_is_not_finite_is_none():
    class Overflowing:
        def squared_gradients(self, config):
            return [1.0, math.inf]

    config = PeftConfig.from_dict({"place": [{"method": "bitfit", "where": [0, 1]}]})
    with pytest.raises(FloatingPointError, match="a gradient of bitfit is not finite"):
        probed(Overflowing(), [config])


def test_what_is_read_is_what_was_written():
    placed = {"method": "bitfit", "where": [0, 1]}
    rows = [{"config": {"place": [placed]}, "squares": [1.0, 4.0]}]
    assert read_sensitivity(rows)([PeftConfig.from_dict({"place": [placed]})]) == pytest.approx(
        5**0.5
    )
