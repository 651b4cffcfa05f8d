"""Sets of classes, numbers, groups and weights of classes, from the file to the export."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Sequence, Value
from scipy.stats import pearsonr, spearmanr
from transformers import AutoTokenizer

import autopeft
from autopeft.core.errors import StudyError
from autopeft.task.registry import task_of
from autopeft.task.task import Judged
from tests import tiny
from tests.task.test_data import saved

TEXTS = [f"sentence number {i}" for i in range(60)]
TOPICS = [["a"] if i % 3 else ["a", "b"] if i % 2 else [] for i in range(60)]
RATINGS = [float(i % 9) - 4 for i in range(60)]


def task(folder: Path, **options: Any) -> Any:
    return task_of({"data": str(folder / "data.parquet"), "max_length": 16, **options})


def test_sets_of_classes_are_lists_or_texts_of_names(tmp_path: Path) -> None:
    saved(tmp_path, text=TEXTS, label=TOPICS)
    lists = task(tmp_path, problem="multi_label").load()
    saved(tmp_path, text=TEXTS, label=["; ".join(names) for names in TOPICS])
    texts = task(tmp_path, problem="multi_label", label_separator=";").load()
    assert lists.label_names == texts.label_names == ("a", "b")
    assert lists.train.to_list() == texts.train.to_list()
    counts = Counter(map(tuple, lists.train["label"][:]))
    assert set(counts) == {(1.0, 0.0), (1.0, 1.0), (0.0, 0.0)}
    assert {tuple(row) for row in lists.test["label"][:]} == set(counts)


def test_the_names_of_a_list_of_class_labels_are_its_own(tmp_path: Path) -> None:
    kinds = Features(
        {"text": Value("string"), "label": Sequence(ClassLabel(names=["x", "y", "z"]))}
    )
    rows = {"text": TEXTS, "label": [[i % 2] for i in range(60)]}
    Dataset.from_dict(rows, features=kinds).save_to_disk(str(tmp_path / "set"))
    data = task_of({"data": str(tmp_path / "set"), "problem": "multi_label"}).load()
    assert data.label_names == ("x", "y", "z")
    assert {tuple(row) for row in data.train["label"][:]} == {(1, 0, 0), (0, 1, 0)}


def test_numbers_are_learned_as_they_are(tmp_path: Path) -> None:
    saved(tmp_path, text=TEXTS, label=RATINGS)
    data = task(tmp_path, problem="regression").load()
    assert data.label_names == ()
    for split in (data.train, data.validation, data.test):
        assert split["label"][:] == [RATINGS[TEXTS.index(text)] for text in split["text"]]
    saved(tmp_path, text=TEXTS, label=[0.5] * 30 + [1.0] * 30)
    with pytest.raises(StudyError, match=r"^task.label_column: .*0.5; .*`problem: regression`"):
        task(tmp_path).load()


@pytest.mark.parametrize(
    ("labels", "options", "reason"),
    [
        (["a"] * 60, {"problem": "regression"}, "must be numbers, got 'a'"),
        ([True, False] * 30, {"problem": "regression"}, "must be numbers, got True"),
        ([1.0] * 60, {"problem": "regression"}, "every training row has the value 1.0"),
        ([3] * 60, {"problem": "multi_label"}, "must be lists or texts of names, got 3"),
        ([""] * 60, {"problem": "multi_label"}, "no training row has a label"),
        (TOPICS, {}, r"got \[\]; .*`problem: multi_label`"),
    ],
)
def test_labels_of_another_kind_are_refused(
    labels: list[Any], options: dict[str, str], reason: str, tmp_path: Path
) -> None:
    saved(tmp_path, text=TEXTS, label=labels)
    with pytest.raises(StudyError, match=f"^task.label_column: .*{reason}"):
        task(tmp_path, **options).load()


def test_a_group_is_never_on_two_sides(tmp_path: Path) -> None:
    users = [f"user {i // 4}" for i in range(60)]
    saved(tmp_path, text=TEXTS, label=[i % 2 for i in range(60)], user=users)
    data = task(tmp_path, group_column="user").load()
    sides = [set(split["group"][:]) for split in (data.train, data.validation, data.test)]
    assert sum(map(len, sides)) == len(set.union(*sides)) == 15
    assert all(sides)
    for name, rows in (("train", slice(0, 40)), ("test", slice(38, 60))):
        table = {"text": TEXTS[rows], "label": [i % 2 for i in range(60)][rows]}
        Dataset.from_dict({**table, "user": users[rows]}).to_parquet(tmp_path / f"{name}.parquet")
    (tmp_path / "data.parquet").unlink()
    given = task_of({"data": str(tmp_path), "group_column": "user"})
    reason = "1 groups are in the splits 'train' and 'test': 'user 9'"
    with pytest.raises(StudyError, match=f"^task.group_column: {reason}"):
        given.load()


def test_balanced_classes_weigh_alike(tmp_path: Path) -> None:
    saved(tmp_path, text=TEXTS, label=["rare" if i % 6 == 0 else "usual" for i in range(60)])
    weighed = task(tmp_path, class_weight="balanced")
    tokenizer = AutoTokenizer.from_pretrained(tiny.folder_of(tiny.MODEL))
    train = weighed.encode(weighed.load(), tokenizer).splits["train"]
    assert train.importance is not None
    sums = [train.importance[train.labels == label].sum().item() for label in (0, 1)]
    assert sums == pytest.approx([len(train) / 2] * 2)
    with pytest.raises(
        StudyError, match=r"^task.class_weight: balanced goes with `problem: single"
    ):
        task(tmp_path, class_weight="balanced", problem="regression")


def test_metrics_of_numbers_and_of_sets() -> None:
    numbers = task_of({"data": "x.csv", "problem": "regression"})
    wanted, given = [1.0, 2.0, 4.0, 3.0], [1.5, 2.5, 3.0, 3.5]
    measured = numbers.measure((), Judged(wanted, given, 0.4))
    assert measured["pearson"] == pytest.approx(pearsonr(wanted, given).statistic)
    assert measured["spearman"] == pytest.approx(spearmanr(wanted, given).statistic)
    assert measured["rmse"] == pytest.approx((1.75 / 4) ** 0.5)
    assert numbers.measure((), Judged(wanted, [1.0] * 4, 0.4))["pearson"] == 0
    sets = task_of({"data": "x.csv", "problem": "multi_label"})
    measured = sets.measure((), Judged([[1, 0], [1, 1], [0, 0]], [[1, 0], [0, 1], [0, 1]], 0.4))
    assert measured["accuracy"] == pytest.approx(1 / 3)
    assert measured["hamming_loss"] == pytest.approx(2 / 6)
    assert measured["f1_micro"] == pytest.approx(2 / (2 + 1))
    assert measured["f1"] == pytest.approx((2 / 3 + 2 / 3) / 2)


PROBLEMS: dict[str, dict[str, Any]] = {
    "multi_label": {"label": TOPICS, "objective": "f1_micro", "goal": "maximize", "n_labels": 2},
    "regression": {"label": RATINGS, "objective": "loss", "goal": "minimize", "n_labels": 1},
}


@pytest.mark.parametrize("problem", PROBLEMS)
def test_a_study_ends_in_exports_that_say_the_same(problem: str, tmp_path: Path) -> None:
    case = PROBLEMS[problem]
    saved(tmp_path, text=TEXTS, label=case["label"])
    objectives = [
        {"name": case["objective"], "goal": case["goal"], "reference": 9},
        {"name": "trainable_params", "goal": "minimize", "known": True, "reference": 1e8},
    ]
    data = {"data": str(tmp_path / "data.parquet"), "problem": problem, "max_length": 16}
    study = {**tiny.study(tmp_path), "name": problem, "task": data, "objectives": objectives}
    study["search"] = {"n_trials": 2, "baselines": ["lora"], "n_finalists": 1, "n_seeds": 2}
    outcome = autopeft.run(study)
    assert {t.state for t in outcome.trials} == {"complete"}
    logits = {}
    tokenizer = AutoTokenizer.from_pretrained(tiny.folder_of(tiny.MODEL))
    tokens = tokenizer(TEXTS[:3], return_tensors="pt")
    for form in ("native", "peft", "merged"):
        folder = autopeft.export(outcome, tmp_path / form, trial=0, format=form)
        with torch.no_grad():
            logits[form] = _loaded(form, folder, case["n_labels"])(**tokens).logits
    assert logits["native"].shape == (3, case["n_labels"])
    assert torch.allclose(logits["native"], logits["peft"], atol=1e-5)
    assert torch.allclose(logits["native"], logits["merged"], atol=1e-5)


def _loaded(form: str, folder: Path, n_labels: int) -> Any:
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification as Auto

    if form == "merged":
        return Auto.from_pretrained(folder).eval()
    model = Auto.from_pretrained(tiny.folder_of(tiny.MODEL), num_labels=n_labels).eval()
    if form == "peft":
        return PeftModel.from_pretrained(model, folder).eval()
    return autopeft.load(model, folder).model.eval()
