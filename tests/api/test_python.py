"""The verbs in Python, as the second example of the README uses them."""

import pytest
from transformers import AutoModelForSequenceClassification

import autopeft
from autopeft import Adapter, BitFit, Layers, Lora, SearchSpace, choice, real, subset
from autopeft.search.candidates import everything
from tests import tiny


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    folder = tmp_path_factory.mktemp("python")
    space = SearchSpace(
        layers=Layers(2),
        place=[
            Lora(r=choice(0, 4, 8)),
            Adapter(size=choice(0, 8, 32), at="ffn"),
            BitFit(where=subset()),
        ],
        train={"learning_rate": real(1e-3, 5e-3, log=True)},
    )
    return autopeft.run(
        {
            **tiny.study(folder),
            "name": "from-python",
            "space": space.to_dict(),
            "objectives": "accuracy-params",
            "search": {
                "sampler": "bayes",
                "n_trials": 4,
                "baselines": ["head-only", "lora"],
                "n_finalists": 0,
            },
            "fidelity": {"epochs": [0.5, 1.0], "signal": "train_loss"},
        }
    )


def test_a_run_gives_what_its_record_says(outcome):
    assert [t.baseline for t in outcome.trials[:2]] == ["head-only", "lora"]
    ended = [t for t in outcome.trials if t.state in {"complete", "stopped"}]
    assert len(ended) == 4
    assert autopeft.open_study(outcome.spec) == outcome


def test_the_front_of_an_outcome_is_that_of_its_study(outcome):
    front = autopeft.pareto(outcome)
    assert front.trials
    assert front == autopeft.pareto(outcome.spec)
    for trial in front.trials:
        assert set(trial.values) == {"accuracy", "trainable_params"}


def test_an_export_comes_back(outcome, tmp_path):
    complete = [t for t in outcome.trials if t.state == "complete" and t.config.placements]
    folder = autopeft.export(outcome, tmp_path / "winner", trial=complete[0].number)
    model = AutoModelForSequenceClassification.from_pretrained(
        tiny.folder_of(tiny.MODEL), num_labels=2
    )
    assert autopeft.load(model, folder).config == complete[0].config
    best = autopeft.export(outcome, tmp_path / "best", pick="best")
    assert (best / "README.md").is_file()


def test_errors_are_exceptions_of_one_family(tmp_path):
    study = {**tiny.study(tmp_path), "name": "wrong", "task": {"data": "x.csv", "metric": "acc"}}
    with pytest.raises(autopeft.AutoPeftError, match=r"^wrong: task.metric: unknown metric 'acc'"):
        autopeft.run(study)


def test_a_limit_below_the_memory_of_training_is_refused_and_one_above_is_not(tmp_path):
    from autopeft.api.run import prepare

    def study(limit):
        space = {"place": [{"method": "lora", "r": {"choice": [0, 4]}}]}
        limits = {"limits": {"peak_memory": limit}}
        return {**tiny.study(tmp_path), "name": "limited", "space": {**space, **limits}}

    prepared = prepare(study("1GB"))
    configs = [drawn.config for drawn in everything(prepared.space)]
    least = min(prepared.known["peak_memory"].value(config) for config in configs)
    assert prepare(study(least)).limits == {"peak_memory": least}
    with pytest.raises(autopeft.AutoPeftError, match="no configuration was found that meets"):
        prepare(study("10MB"))


def test_the_limits_of_a_study_replace_those_of_its_space(tmp_path):
    """Its record is one of a space with these limits."""
    from autopeft.api.run import prepare

    document = {**tiny.study(tmp_path), "name": "limited"}
    space = {"place": [{"method": "lora", "r": {"choice": [1, 4]}}]}
    document["space"] = {**space, "limits": {"trainable_params": "1%", "peak_memory": "1GB"}}
    limited = prepare({**document, "limits": {"peak_memory": "2GB"}})
    wanted = {**limited.limits, "peak_memory": 2e9}
    assert limited.limits == wanted
    assert dict(limited.space.space.limits) == {"trainable_params": "1%", "peak_memory": "2GB"}
    assert autopeft.plan({**document, "limits": {"peak_memory": "2GB"}})["limits"] == wanted
    with pytest.raises(autopeft.AutoPeftError, match=r"^limited: .*unknown limit 'peek_memory'"):
        prepare({**document, "limits": {"peek_memory": "2GB"}})
    data = limited.task.load()
    limited.open(data)
    with pytest.raises(autopeft.AutoPeftError, match="begun with another space: limits"):
        prepare(document).open(data)
