"""Tags of words: their encoding, the scores of entities, a study from file to export."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf
from datasets import ClassLabel, Dataset, Features, Sequence, Value

import autopeft
from autopeft.core.errors import StudyError
from autopeft.model.head import IGNORED
from autopeft.task.registry import task_of
from autopeft.task.task import Judged
from autopeft.task.token_classification import entities
from tests import tiny
from tests.exports import exported

NAMES = ("O", "B-PER", "I-PER", "B-LOC")
PEOPLE, PLACES = ("Ada Lovelace", "Alan Turing", "Grace Hopper"), ("London", "Manchester", "Boston")


def rows() -> list[dict[str, Any]]:
    made = []
    for i in range(24):
        first, last = PEOPLE[i % 3].split()
        words = [first, last, "went", "to", PLACES[i % 2], *["again"] * (i % 4), "."]
        tags = ["B-PER", "I-PER", "O", "O", "B-LOC", *["O"] * (i % 4), "O"]
        made.append({"tokens": [*words, str(i)], "ner_tags": [*tags, "O"]})
    return made


def saved(folder: Path, given: list[dict[str, Any]]) -> str:
    Dataset.from_list(given).to_parquet(folder / "data.parquet")
    return str(folder / "data.parquet")


def task(data: str, **options: Any) -> Any:
    return task_of({"type": "token-classification", "data": data, "max_length": 24, **options})


def test_entities_are_those_of_conll() -> None:
    tags = ["B-PER", "I-PER", "O", "I-LOC", "B-LOC", "I-PER", "VERB", "S-LOC", "B-PER", "E-PER"]
    assert list(entities(0, tags)) == [
        (0, "PER", 0, 2),
        (0, "LOC", 3, 4),
        (0, "LOC", 4, 5),
        (0, "PER", 5, 6),
        (0, "VERB", 6, 7),
        (0, "LOC", 7, 8),
        (0, "PER", 8, 10),
    ]


def test_an_entity_is_right_as_a_whole_or_not() -> None:
    wanted, given = [[1, 2, 0, 3], [0, 3]], [[1, 0, 0, 3], [0, 3]]
    measured = task("x.csv").measure(NAMES, Judged(wanted, given, 0.2))
    assert measured["accuracy"] == pytest.approx(5 / 6)
    assert measured["precision"] == pytest.approx(2 / 3)
    assert measured["recall"] == pytest.approx(2 / 3)
    assert measured["f1"] == pytest.approx(2 / 3)
    assert measured.keys() == task("x.csv").goals.keys()


def test_only_the_first_piece_of_a_word_is_judged(tmp_path: Path) -> None:
    given = task(saved(tmp_path, rows()))
    data = given.load()
    assert data.label_names == ("B-LOC", "B-PER", "I-PER", "O")
    tokenizer = tf.AutoTokenizer.from_pretrained(tiny.folder_of(tiny.MODEL))
    train = given.encode(data, tokenizer).splits["train"]
    for ids, targets, tags in zip(
        train.columns["input_ids"], train.labels, data.train["label"], strict=True
    ):
        pieces = tokenizer.convert_ids_to_tokens(ids)
        judged = [p for p, t in zip(pieces, targets.tolist(), strict=True) if t != IGNORED]
        assert not any(p.startswith("##") or p in ("[CLS]", "[SEP]") for p in judged)
        assert targets[targets != IGNORED].tolist() == tags
    assert any(p.startswith("##") for p in pieces)


def test_class_labels_keep_their_names_and_order(tmp_path: Path) -> None:
    kinds = Features(
        {"words": Sequence(Value("string")), "tags": Sequence(ClassLabel(names=[*NAMES]))}
    )
    numbers = [[NAMES.index(tag) for tag in row["ner_tags"]] for row in rows()]
    table = {"words": [row["tokens"] for row in rows()], "tags": numbers}
    Dataset.from_dict(table, features=kinds).save_to_disk(str(tmp_path / "set"))
    assert task(str(tmp_path / "set")).load().label_names == NAMES


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"tokens": ["a", "b"], "ner_tags": ["O"]}, r"ner_tags must hold 2 tags, got \['O'\]"),
        ({"tokens": [], "ner_tags": []}, r"tokens must be a list of words, got \[\]"),
        ({"tokens": ["a", ""], "ner_tags": ["O", "O"]}, r"tokens must be a list of words"),
    ],
)
def test_rows_that_do_not_fit_are_told(row: dict[str, Any], reason: str, tmp_path: Path) -> None:
    data = saved(tmp_path, [*rows(), row])
    with pytest.raises(StudyError, match=f"^task.data: 1 of 25 .*first row 25: {reason}"):
        task(data).load()
    with pytest.raises(StudyError, match=r"^task.words_column: unknown column 'token'"):
        task(data, words_column="token").load()


def test_a_study_ends_in_exports_that_say_the_same(tmp_path: Path) -> None:
    task = {"type": "token-classification", "data": saved(tmp_path, rows())}
    outcome = autopeft.run(tiny.of_ranks(tmp_path, "tags", task, "f1", epochs=4.0))
    best = outcome.choose("best").trial
    assert best.values["f1"] > 0.8
    tokenizer = tf.AutoTokenizer.from_pretrained(tiny.folder_of(tiny.MODEL))
    tokens = tokenizer("Ada Turing went to Boston", return_tensors="pt")
    logits = {}
    auto, base = tf.AutoModelForTokenClassification, tiny.folder_of(tiny.MODEL)
    for form, model in exported(outcome, best.number, auto, base, tmp_path, num_labels=4):
        with torch.no_grad():
            logits[form] = model(**tokens).logits
    assert logits["native"].shape[-1] == 4
    assert torch.allclose(logits["native"], logits["peft"], atol=1e-5)
    assert torch.allclose(logits["native"], logits["merged"], atol=1e-5)
    config = tf.AutoConfig.from_pretrained(tmp_path / "merged")
    assert config.id2label == {0: "B-LOC", 1: "B-PER", 2: "I-PER", 3: "O"}
