"""What the section `search` of a study file asks for beside a sampler."""

import shutil
from dataclasses import replace
from statistics import fmean

import pytest
import torch
from safetensors.torch import load_file
from sqlalchemy import make_url

import autopeft
from autopeft.api.earlier import observations
from autopeft.api.outcome import open_study
from autopeft.api.pace import follow
from autopeft.api.run import prepare
from autopeft.cli.show import front_of, show_front
from autopeft.core.config import PeftConfig
from autopeft.core.errors import StudyError
from autopeft.objective.objective import load_objectives
from autopeft.study.record import find_record
from autopeft.study.repeats import fresh
from autopeft.study.spec import FidelitySection, Search
from autopeft.task.registry import task_of
from autopeft.train.member_training import STATE_FILE
from autopeft.train.trainer import Trainer
from tests import tiny


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A study whose finalist and baseline are trained again."""
    folder = tmp_path_factory.mktemp("first")
    search = {"sampler": "random", "n_trials": 3, "baselines": ["head-only"], "n_finalists": 1}
    search = {**search, "n_seeds": 2}
    return autopeft.run({**tiny.study(folder), "name": "first", "search": search})


def test_finalists_and_baselines_end_as_means_of_fresh_seeds(first):
    """The finalist is trained with both lengths, the baseline with that which is better for it."""
    search = first.trials[0].epochs
    best, baseline = ([t for t in first.trials if t.repeat_of == n] for n in (_finalist(first), 0))
    repeats = [t for of in fresh(first.trials).values() for t in of]
    again = {t.repeat_of for t in repeats}
    assert again == {0, _finalist(first)}
    assert [t.epochs for t in best] == [search, search, 2 * search, 2 * search]
    means = [fmean(t.values["accuracy"] for t in best if t.epochs == e) for e in (1, 2)]
    (length,) = {t.epochs for t in baseline}
    assert length == (2 * search if means[1] > means[0] else search)
    assert all(t.state == "complete" for t in repeats)
    assert {t.epochs for t in repeats} == {length}
    assert {t.number for t in first.front.trials} <= again
    for trial in first.front.trials:
        own = [t for t in repeats if t.repeat_of == trial.number]
        assert trial.n_seeds == 2
        assert trial.values["accuracy"] == pytest.approx(fmean(t.values["accuracy"] for t in own))
        assert trial.test["accuracy"] == pytest.approx(fmean(t.test["accuracy"] for t in own))
        assert trial.folder == first.trials[trial.number].folder
    assert autopeft.run(first.spec).trials == first.trials


def _finalist(outcome):
    (number,) = {t.repeat_of for t in outcome.trials if t.repeat_of} - {0}
    return number


def test_a_record_tells_what_is_trained_again(first):
    assert (Search().n_finalists, Search().n_seeds) == (2, 3)
    bare = first.spec.model_copy(update={"search": Search()})
    search = open_study(bare).spec.search
    assert (search.n_finalists, search.n_seeds, search.baselines) == (1, 2, ["head-only"])


def test_only_repeats_are_scored_on_the_test_split_and_at_their_end(first):
    for trial in first.trials:
        assert bool(trial.test) == (trial.repeat_of is not None)
        assert not any(report.test for report in trial.reports[:-1])
    repeat = first.trials[-1]
    trainer = Trainer(tiny.MODEL, task_of(first.spec.task), threads=1)
    state = load_file(f"{repeat.folder}/{STATE_FILE}")
    scored = trainer.score(repeat.config, state)
    assert repeat.test.keys() == scored.keys()
    assert repeat.test["accuracy"] == scored["accuracy"]
    assert repeat.test["n_examples"] == scored["n_examples"] > 0


def test_a_study_ends_with_a_sentence_for_its_baseline(first, tmp_path, capsys):
    show_front(first)
    said = " ".join(capsys.readouterr().out.split())
    assert "means of 2 fresh trainings each, on the validation split" in said
    (comparison,) = first.comparisons
    assert comparison.baseline.baseline == "head-only"
    assert comparison.sentence in said
    assert front_of(first)["against_baselines"][0]["sentence"] == comparison.sentence
    assert comparison.sentence in first.report(tmp_path).read_text("utf-8")


def test_a_card_tells_its_training_from_fresh_ones(first, tmp_path):
    card = (autopeft.export(first, tmp_path / "out", pick="best") / "README.md").read_text()
    best = first.choose("best")
    assert f"Picked because {best.reason}." in card
    assert f"- {first.comparisons[0].sentence}" in card
    again = fresh(first.trials)[best.trial.number]
    own = max(again, key=lambda t: t.values["accuracy"])
    assert f"| accuracy, validation, this training | {own.values['accuracy']:.4f} |" in card
    assert f"num_train_epochs {own.epochs}, max_length" in card
    assert (
        f"| accuracy, test, mean of 2 fresh trainings | {best.trial.test['accuracy']:.4f}" in card
    )


def test_the_tensors_of_the_best_fresh_training_are_exported(first, tmp_path):
    best = first.choose("best").trial
    again = fresh(first.trials)[best.number]
    own = max(again, key=lambda t: t.values["accuracy"])
    there = load_file(f"{own.folder}/{STATE_FILE}")
    exported = load_file(autopeft.export(first, tmp_path / "out", pick="best") / STATE_FILE)
    assert exported.keys() == there.keys()
    assert all(torch.equal(exported[name], there[name]) for name in there)


def test_a_trial_is_trained_again_until_it_has_so_many_seeds(first, tmp_path):
    """As far as the finalists were; nothing else is trained, and what there is, is kept."""
    finalist = _finalist(first)
    trained = [t for t in first.trials if t.state == "complete" and t.repeat_of is None]
    (other,) = {t.number for t in trained} - {0, finalist}
    copied = _copy(first, tmp_path)
    outcome = autopeft.rerun(copied, other, seeds=3)
    assert outcome.trials[: len(first.trials)] == first.trials
    added = outcome.trials[len(first.trials) :]
    assert [t.repeat_of for t in added] == [other] * 3
    assert {t.epochs for t in added} == {t.epochs for t in fresh(first.trials)[0]}
    assert all(t.test for t in added)
    again = autopeft.rerun(copied, finalist, seeds=3)
    assert [t.repeat_of for t in again.trials[len(outcome.trials) :]] == [finalist]
    (comparison,) = again.against_baselines(other)
    assert (comparison.rival.number, comparison.n_seeds) == (other, 2)
    assert autopeft.rerun(copied, finalist, seeds=2).trials == again.trials
    assert again.spec.search.n_trials == first.spec.search.n_trials
    changes = {"search.seed": 77, "search.n_trials": 50}
    assert autopeft.rerun(copied, finalist, seeds=2, changes=changes).trials == again.trials
    assert open_study(copied).spec.search == first.spec.search
    assert outcome.lacking(other, 3) == ""
    assert outcome.lacking(other, 4) == f"trial {other} has 3 of 4 fresh trainings"


@pytest.mark.parametrize(
    ("number", "seeds", "reason"),
    [
        (99, 2, r"there is no trial 99"),
        (-1, 2, r"trial \d+ is trial \d+ with a fresh seed"),
        (0, 0, r"seeds: must be positive, got 0"),
    ],
)
def test_what_cannot_be_trained_again_is_said(first, number, seeds, reason):
    number = first.trials[number].number if number < 0 else number
    with pytest.raises(autopeft.AutoPeftError, match=reason):
        autopeft.rerun(first.spec, number, seeds=seeds)


def test_a_study_that_has_not_ended_is_run_first(first, tmp_path):
    copied = _copy(first, tmp_path)
    record = find_record(copied.storage_url, copied.name)
    record.enqueue_trial({})
    reason = r"trial \d+ is waiting; run the study to its end first"
    with pytest.raises(autopeft.AutoPeftError, match=reason):
        autopeft.rerun(copied, 0)


def _copy(first, folder):
    """The study file with a copy of its record."""
    database = make_url(first.spec.storage_url).database
    shutil.copy(database, folder / "study.db")
    return first.spec.model_copy(update={"storage": f"sqlite:///{folder}/study.db"})


def test_trials_are_rows_of_a_frame(first):
    rows = first.frame()
    assert list(rows.index) == [t.number for t in first.trials]
    assert rows.loc[0, "baseline"] == "head-only"
    again = rows[rows.repeat_of.notna()]
    assert again.test_accuracy.notna().all()
    front = first.front.frame()
    assert list(front.accuracy) == [t.values["accuracy"] for t in first.front.trials]
    assert (front.n_seeds == 2).all()
    assert first.trials[0].config == PeftConfig.from_dict(rows.loc[0, "config"])
    assert "accuracy" in first.front._repr_html_()
    assert list(replace(first, trials=()).frame().index) == []


def test_a_front_keeps_limits(first):
    """Of what the study measures, and of what it does not, which is computed then."""
    params = sorted(t.values["trainable_params"] for t in first.front.trials)
    few = autopeft.limited(first, {"trainable_params": params[0] + 0.5})
    assert {t.values["trainable_params"] for t in few.front.trials} == {params[0]}
    choice = few.choose("best")
    assert choice.reason.endswith(f", of those with trainable_params up to {params[0] + 0.5}")
    assert few.trial(choice.trial.number).number == choice.trial.number
    assert autopeft.limited(first, {"trainable_params": "50%"}).front == first.front
    assert autopeft.limited(first, {}) is first
    bare = replace(first, trials=tuple(replace(t, known={}) for t in first.trials))
    assert autopeft.limited(bare, {"trainable_params": params[0] + 0.5}).front.trials == tuple(
        replace(t, known={}) for t in few.front.trials
    )
    with pytest.raises(autopeft.AutoPeftError, match=r"limits.peak_memory: no .* trial meets 1MB"):
        autopeft.limited(first, {"peak_memory": "1MB"})
    with pytest.raises(autopeft.AutoPeftError, match=r"unknown limit 'trainable'"):
        autopeft.limited(first, {"trainable": 1})


def test_an_earlier_study_is_read_by_the_names_of_its_objectives(first):
    objectives = load_objectives("accuracy-params")
    (found,) = observations([first.spec], objectives)
    complete = [t for t in first.trials if t.state == "complete" and t.repeat_of is None]
    assert [o.config for o in found] == [t.config for t in complete]
    assert [o.losses[0] for o in found] == [-t.values["accuracy"] for t in complete]
    other = load_objectives([{"name": "f1", "goal": "maximize", "reference": 0}])
    with pytest.raises(autopeft.AutoPeftError, match=r"warm_start: 'first' measures accuracy"):
        observations([first.spec], other)


def test_a_study_begins_with_what_another_found(first, tmp_path):
    search = {"n_trials": 2, "warm_start": [first.spec], "n_finalists": 0}
    study = {**tiny.study(tmp_path), "name": "second", "search": search}
    assert len(autopeft.run(study).trials) == 2
    missing = {**study, "name": "third", "search": {"warm_start": ["nowhere.yaml"]}}
    with pytest.raises(autopeft.AutoPeftError, match=r"search.warm_start: .*nowhere.yaml"):
        autopeft.run(missing)


def test_a_staged_study_runs(tmp_path):
    search = {"strategy": "staged", "n_trials": 2, "n_finalists": 0}
    outcome = autopeft.run({**tiny.study(tmp_path), "name": "staged", "search": search})
    assert len([t for t in outcome.trials if t.state == "complete"]) == 2
    with pytest.raises(autopeft.AutoPeftError, match=r"search.strategy: .*'stage'"):
        autopeft.run({**tiny.study(tmp_path), "name": "x", "search": {"strategy": "stage"}})


def test_several_samplers_take_turns(tmp_path):
    """The record tells whose each trial is; the baseline is nobody's."""
    search = {"sampler": ["random", "nsga2"], "n_trials": 5, "n_finalists": 0}
    search["baselines"] = ["head-only"]
    document = {**tiny.study(tmp_path), "name": "turns", "search": search}
    outcome = autopeft.run(document)
    assert outcome.facts["sampler"] == "random, nsga2"
    record = find_record(outcome.spec.storage_url, "turns")
    arms = [trial.user_attrs.get("sampler") for trial in record.trials]
    assert arms == [None, "random", "nsga2", "random", "nsga2"]
    wrong = {**document, "name": "x", "search": {**search, "sampler": ["random", "tpf"]}}
    with pytest.raises(StudyError, match=r"search.sampler: unknown sampler 'tpf'.*'tpe'"):
        autopeft.run(wrong)
    for none in ([], ["bayes", "bayes"]):
        with pytest.raises(StudyError, match=r"search.sampler"):
            autopeft.run({**wrong, "search": {**search, "sampler": none}})
    staged = {**search, "sampler": "tpf", "strategy": "staged"}
    with pytest.raises(StudyError, match=r"search.sampler: unknown sampler 'tpf'"):
        autopeft.run({**wrong, "search": staged})


def test_what_a_supernet_proposes_is_trained(tmp_path):
    """Interrupted after its first epoch, it goes on; its trial is none of the front."""
    space = {"place": [{"method": "lora", "r": {"choice": [0, 2, 4]}}], "layers": {"groups": 2}}
    search = {"sampler": "random", "n_trials": 4, "n_finalists": 0, "baselines": ["head-only"]}
    supernet = {"type": "supernet", "epochs": 2, "population": 4, "generations": 1}
    search["proposers"] = [{**supernet, "n_proposals": 2}]
    document = {**tiny.study(tmp_path), "name": "proposed", "space": space, "search": search}

    def interrupted(study):
        trial = study.trials()[-1]
        if trial.proposer and len(trial.reports) == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        autopeft.run(document, watch=interrupted)
    outcome = autopeft.run(document)
    (own,) = [trial for trial in outcome.trials if trial.proposer]
    assert (own.proposer, own.state, own.number) == ("supernet", "stopped", 1)
    assert [report.fidelity for report in own.reports] == [1.0, 2.0]
    theirs = [trial for trial in outcome.trials if trial.origin == "supernet"]
    assert len(theirs) == 2
    assert all(trial.config.placements for trial in theirs)
    assert sum(trial.is_own and trial.state == "complete" for trial in outcome.trials) == 4 + 2
    assert outcome.trials == autopeft.run(document).trials
    assert own.number not in {trial.number for trial in outcome.front.trials}


@pytest.mark.parametrize(
    ("proposers", "says"),
    [
        ("supernett", "search.proposers: unknown proposer 'supernett'.*did you mean 'supernet'"),
        ({"type": "supernet", "epoch": 3}, "supernet: unknown key 'epoch'.*did you mean 'epochs'"),
        ({"type": "supernet", "n_eval": 0}, "supernet.n_eval: .*got 0"),
        ([3], "search.proposers"),
    ],
)
def test_a_search_that_is_none_is_refused(proposers, says, tmp_path):
    search = {"n_trials": 4, "proposers": proposers}
    with pytest.raises(StudyError, match=says):
        prepare({**tiny.study(tmp_path), "name": "refused", "search": search})


def test_a_search_takes_its_time():
    """Three trainings of its own, and four of what it proposes."""
    search = Search(n_finalists=0, proposers=["supernet"])
    assert follow(search, FidelitySection()) == 7.0
