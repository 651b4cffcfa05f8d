"""The comparison of recommendations: its figures on made-up rows, its runs on a small file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from autopeft.api.run import run
from autopeft.core.config import PeftConfig
from autopeft.report.seeds import folded
from benchmarks.value import __main__ as comparison
from benchmarks.value import texts
from benchmarks.value.bench import Bench
from benchmarks.value.figures import by_arm, gains, interval
from benchmarks.value.mixes import autopeft_paper, study_of, trials_of
from benchmarks.value.picks import picks
from benchmarks.value.runs import ARMS, FRESH, LONGER, retrainings, training
from benchmarks.value.single import faster
from tests.tiny import BAD, GOOD, write_table


def trial(
    accuracy: float | None, params: int, name: str = "", trainings: int = 1, length: float = 3.0
) -> dict:
    named = {"place": [], "train": {"name": name or f"{params}"}}
    cost = {"epochs": 3.0 * trainings, "trainings": trainings, "length": length}
    return {"config": named, "params": params, "accuracy": accuracy, "loss": 0.5, **cost}


def found(arm: str, *trials: dict, repetition: int = 0) -> dict:
    place = {"data": "products", "repetition": repetition, "n_train": 10, "budget": 3}
    return {**place, "arm": arm, "trials": list(trials)}


def scores(searches: list[dict], accuracies: dict[str, float]) -> list[dict]:
    """Retrainings of two seeds, one point of accuracy apart."""
    return [
        {
            "data": order.data,
            "repetition": order.repetition,
            "config": order.config,
            "epochs": order.epochs,
            "seed": order.seed,
            "test_accuracy": accuracies[json.loads(order.config)["train"]["name"]]
            + (order.seed - FRESH) / 100,
        }
        for order in retrainings(searches, 2)
    ]


def params(trials: list[dict], most: float) -> list[int]:
    return [chosen["params"] for chosen in picks(trials, most).values()]


def test_picks_are_by_validation_and_ties_take_fewer_parameters() -> None:
    trials = [trial(0.8, 500), trial(0.8, 400), trial(0.795, 90), trial(0.6, 10), trial(None, 1)]
    assert params(trials, 400) == [400, 400, 90]
    assert params(trials, 100) == [400, 90, 90]
    assert params(trials, 5) == [400, 10, 90]


def test_one_point_less_is_near_enough_whatever_the_rounding() -> None:
    assert params([trial(0.84, 50), trial(0.83, 40), trial(0.8299, 30)], 50) == [50, 50, 40]


def test_picks_are_among_those_that_were_trained_again() -> None:
    trials = [trial(0.9, 90), trial(0.8, 70, trainings=4), trial(0.7, 60, trainings=4)]
    assert params(trials, 100) == [70, 70, 70]
    assert params([*trials, trial(0.75, 10)], 65) == [70, 60, 70]
    assert params([*trials, trial(0.75, 10)], 20) == [70, 10, 70]


def test_equal_picks_share_their_retrainings() -> None:
    searches = [found("tuned_lora", trial(0.8, 100)), found("random", trial(0.7, 100))]
    orders = retrainings(searches, 2)
    assert [order.seed for order in orders] == [FRESH, FRESH, FRESH + 1, FRESH + 1]
    pick, longer = trial(0.8, 100), trial(0.8, 100, length=6.0)
    expected = {training(pick), training(longer)}
    assert {(order.config, order.epochs) for order in orders} == expected
    searches[1]["trials"][0]["length"] = 6.0
    assert retrainings(searches, 2) == orders


def test_gains_are_paired_and_the_best_single_method_is_chosen_by_validation() -> None:
    searches = [
        found("tuned_lora", trial(0.8, 100, "lora")),
        found("tuned_adapter", trial(0.82, 300, "adapter")),
        found("baselines", trial(0.7, 10, "bitfit")),
        found("autopeft", trial(0.9, 200, "mix"), trial(0.85, 25, "small")),
    ]
    accuracies = {"lora": 0.7, "adapter": 0.68, "bitfit": 0.9, "mix": 0.75, "small": 0.71}
    tests = scores(searches, accuracies)
    of_mix, of_small = [g for g in gains(searches, tests, 2) if g.arm == "autopeft"][:2]
    assert (of_mix.pick, of_small.pick) == ("best", "within_params")
    assert of_mix.over_lora == pytest.approx(5)
    assert of_mix.over_single == pytest.approx(7)
    assert of_mix.params_ratio == 2
    assert of_small.over_lora == pytest.approx(1)
    assert of_small.params_ratio == 0.25


def test_pairs_that_are_not_whole_do_not_count() -> None:
    searches = [found("tuned_lora", trial(0.8, 100)), found("random", trial(0.7, 10))]
    tests = scores(searches, {"100": 0.7, "10": 0.6})
    assert {g.arm for g in gains(searches, tests, 2)} == {"tuned_lora", "random", LONGER}
    assert {g.arm for g in gains(searches, tests[:-1], 2)} == {"tuned_lora", "random"}
    assert not gains(searches[1:], tests, 2)


def test_figures_pool_pairs() -> None:
    searches, tests = [], []
    for repetition, accuracy in enumerate((0.72, 0.74)):
        rows = [
            found("tuned_lora", trial(0.8, 100), repetition=repetition),
            found("random", trial(0.7, [50, 200][repetition], "mix"), repetition=repetition),
        ]
        searches += rows
        tests += scores(rows, {"100": 0.7, "mix": accuracy})
    table = by_arm(gains(searches, tests, 2), ["tuned_lora", "random", "autopeft"])
    assert set(table) == {"tuned_lora", "random"}
    best = table["random"]["best"]
    assert best["gain_over_tuned_lora"] == best["gain_over_best_single"] == 3
    assert best["interval"] == pytest.approx([3 - 12.706, 3 + 12.706], abs=0.01)
    assert best["params_ratio"] == 1
    assert best["pairs"] == 2
    assert table["tuned_lora"]["best"]["interval"] == [0, 0]
    assert interval([1.0]) is None


def test_a_factor_takes_every_learning_rate_of_a_baseline() -> None:
    document = faster("lora", 0.5)
    assert document["train"]["learning_rate"] == 1e-3
    assert all(part.get("learning_rate") is None for part in document["place"])


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [
        (f"{text}, take {i}", label)
        for i in range(350)
        for texts_of, label in ((GOOD, "good"), (BAD, "bad"))
        for text in texts_of
    ]
    return write_table(tmp_path_factory.mktemp("own") / "own.csv", rows, ("words", "kind"))


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOPEFT_CACHE", str(tmp_path_factory.getbasetemp()))


def test_a_file_is_split_anew_in_every_repetition(file: Path) -> None:
    name = texts.own(str(file), "words", "kind")
    first, second = (texts.task(name, repetition, 48).load() for repetition in (0, 1))
    assert len(first.train) == 48
    assert first.train["text"] != second.train["text"]
    splits = [{*split["text"]} for split in (first.train, first.validation, first.test)]
    assert len(set.union(*splits)) == sum(map(len, splits))
    assert texts.title(name) == "own.csv"
    with pytest.raises(SystemExit, match=r"own\.csv has no column 'label'; it has words, kind"):
        texts.task(texts.own(str(file), "words", "label"), 0)
    with pytest.raises(SystemExit, match="no such file"):
        texts.own("nowhere.csv", "words", "kind")


@pytest.mark.benchmark
def test_repeats_of_the_study_count_and_tell_its_accuracies(file: Path, tmp_path: Path) -> None:
    bench = Bench(texts.task(texts.own(str(file), "words", "kind"), 0, 48))
    study = study_of(bench, 3, 0, str(tmp_path))
    study["search"] |= {"n_finalists": 2, "n_seeds": 2}
    outcome = run(study)
    trials = list(trials_of(outcome))
    again = [trial for trial in trials if trial.trainings > 1]
    assert len(trials) == 3
    (length,) = {trial.length for trial in again}
    assert 1 <= len(again) <= 2
    assert sum(trial.epochs for trial in trials) == 3.0 * 3 + (
        2 * 6.0 if len(again) == 1 else 2 * (3.0 + 6.0 + length)
    )
    assert {trial.length for trial in trials} == {3.0, length}
    told = {trial.config.key: trial.values["accuracy"] for trial in folded(outcome.trials)}
    assert all(t.accuracy == told[PeftConfig.from_dict(t.config).key] for t in trials)


@pytest.mark.benchmark
def test_arms_keep_to_the_budget_and_the_comparison_resumes(file: Path, tmp_path: Path) -> None:
    name = texts.own(str(file), "words", "kind")
    extent = comparison.Extent((name,), repetitions=1, n_train=48, budget=3, seeds=2)
    arms = [arm for arm in ARMS if arm != "autopeft_paper"]
    output = tmp_path / "value.json"
    report = comparison.compare(extent, arms, 2, output)
    assert json.loads(output.read_text()) == report
    assert report["budget"] == dict.fromkeys(arms, 3)
    assert report["repetitions"] == {"own.csv": 1}
    assert set(report["pooled"]) == set(report["by_data"]["own.csv"]) == {*arms, LONGER}
    assert report["pooled"]["tuned_lora"]["best"]["gain_over_tuned_lora"] == 0
    assert report["pooled"]["autopeft"]["within_params"]["params_ratio"] <= 1
    rows = [p.stat().st_mtime_ns for p in tmp_path.glob("*.jsonl")]
    assert comparison.compare(extent, arms, 2, output) == report
    assert [p.stat().st_mtime_ns for p in tmp_path.glob("*.jsonl")] == rows


@pytest.mark.benchmark
def test_the_published_search_runs(file: Path) -> None:
    pytest.importorskip("numpyro")
    bench = Bench(texts.task(texts.own(str(file), "words", "kind"), 0, 48))
    trials = autopeft_paper(bench, 4, 0)
    assert len(trials) == 4
    assert all(trial.accuracy for trial in trials)
