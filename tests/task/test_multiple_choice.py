"""Questions with choices: forms of data, and a study from file to export."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf
from datasets import Dataset, DatasetDict

import autopeft
from autopeft.core.errors import StudyError
from autopeft.task.registry import task_of
from tests import tiny
from tests.exports import exported

SOLUTIONS = {"sol1": "good", "sol2": "bad"}


def saved(folder: Path, given: list[dict[str, Any]]) -> str:
    Dataset.from_list(given).to_parquet(folder / "data.parquet")
    return str(folder / "data.parquet")


def task(data: str, **options: Any) -> Any:
    return task_of({"type": "multiple-choice", "data": data, "n_choices": 2, **options})


@pytest.mark.parametrize(
    "form",
    [
        {"choices": ["good", "bad"], "label": 1},
        {"choices": ["good", "bad"], "answer": "bad"},
        {"choices": {"text": ["good", "bad"], "label": ["A", "B"]}, "answerKey": "B"},
        {"choices": {"text": ["good", "bad"], "label": ["1", "2"]}, "answerKey": "2"},
        {"ending0": "good", "ending1": "bad", "label": 1},
        {"A": "good", "B": "bad", "answer": "B"},
        {"option_a": "good", "option_b": "bad", "answer": "B"},
        {**SOLUTIONS, "label": "sol2"},
    ],
)
def test_forms_of_choices(form: dict[str, Any], tmp_path: Path) -> None:
    rows = [{"question": f"how is film {i}", **form} for i in range(8)]
    data = task(saved(tmp_path, rows)).load()
    assert data.test[0]["choices"] == ["good", "bad"]
    assert data.test[0]["label"] == 1


@pytest.mark.parametrize(
    ("form", "labels"),
    [
        (SOLUTIONS, [0, 1]),
        ({"choice1": "good", "choice2": "bad"}, [0, 1]),
        ({"option1": "good", "option2": "bad"}, ["1", "2"]),
        ({"choices": ["1", "0"]}, [0, 1]),
        ({"sol1": "good", "sol2": "bad"}, ["0", "1"]),
    ],
)
def test_whole_numbers_are_places(form: dict[str, Any], labels: list[Any], tmp_path: Path) -> None:
    """As text they are where some row has 0, unless choices are named by numbers."""
    rows = [{"question": f"film {i}", **form, "label": labels[i % 2]} for i in range(12)]
    data = task(saved(tmp_path, rows)).load()
    for table in (data.train, data.validation, data.test):
        places = [int(text.split()[1]) % 2 for text in table["text"][:]]
        assert table["label"][:] == places


def test_a_test_split_without_answers_is_cut_anew(tmp_path: Path) -> None:
    rows = [{"question": f"film {i}", "A": "x", "B": "y", "label": "AB"[i % 2]} for i in range(20)]
    hidden = [{**row, "label": ""} for row in rows]
    DatasetDict(train=Dataset.from_list(rows), test=Dataset.from_list(hidden)).save_to_disk(
        tmp_path / "data"
    )
    assert len(task(str(tmp_path / "data")).load().test) == 2


@pytest.mark.parametrize(
    ("row", "options", "reason"),
    [
        ({"choices": ["a"], "label": 0}, {}, r"expected 2 choices \(task.n_choices\), got 1"),
        ({"choices": ["a", "b"], "label": 2}, {}, "the answer must be the place.*got 2"),
        ({"choices": ["a", " "], "label": 0}, {}, "choices must be a list of texts"),
        ({"options": ["a", "b"], "label": 0}, {"choices_column": "option"}, "unknown column"),
        ({"a": "x", "b": "y", "label": 0}, {"choices_column": ["a", "c"]}, "unknown column 'c'"),
    ],
)
def test_what_is_none_is_told(
    row: dict[str, Any], options: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    data = saved(tmp_path, [{"question": "how", **row}])
    with pytest.raises(StudyError, match=reason):
        task(data, **options).load()


def test_a_study_ends_in_exports_that_choose_the_same(tmp_path: Path) -> None:
    rows = [
        {
            "question": f"film {i} is {('good', 'bad')[i % 2]}",
            "choices": ["a gem of a film", "dull"],
            "label": i % 2,
        }
        for i in range(40)
    ]
    task = {"type": "multiple-choice", "data": saved(tmp_path, rows), "n_choices": 2}
    outcome = autopeft.run(tiny.of_ranks(tmp_path, "choices", task, "accuracy", epochs=6.0))
    best = outcome.choose("best").trial
    assert best.values["accuracy"] > 0.7
    base = tiny.folder_of(tiny.MODEL)
    tokenizer = tf.AutoTokenizer.from_pretrained(base)
    read = tokenizer(["film 3 is bad"] * 2, rows[0]["choices"], padding=True, return_tensors="pt")
    asked = {name: ids[None] for name, ids in read.items()}
    logits = {}
    auto = tf.AutoModelForMultipleChoice
    for form, model in exported(outcome, best.number, auto, base, tmp_path):
        with torch.no_grad():
            logits[form] = model(**asked).logits
    assert logits["native"].shape == (1, 2)
    assert torch.allclose(logits["native"], logits["peft"], atol=1e-5)
    assert torch.allclose(logits["native"], logits["merged"], atol=1e-4)
