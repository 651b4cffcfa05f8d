"""What a study says of its examples before it trains."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from autopeft.api.plan import plan
from autopeft.api.run import prepare
from autopeft.core.errors import StudyError
from autopeft.task.text_classification import TextClassification
from autopeft.task.tokens import Examples
from autopeft.train.trainer import Trainer
from tests import tiny

_ONE_TRIAL = {"search": {"n_trials": 1, "n_finalists": 0}, "fidelity": {"epochs": 1}}


def study(folder: Path, model: Path, text: str = "a good film", max_length: int = 16) -> dict:
    rows = [(f"{text} {i}", label) for i in range(15) for label in ("bad", "good")]
    data = tiny.write_table(folder / "rows.csv", rows)
    task = {"data": str(data), "max_length": max_length}
    return {**tiny.study(folder), "name": "examples", "model": str(model), "task": task}


def test_a_padding_token_without_an_embedding_is_refused(tiny_llama: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    tokenizer.save_pretrained(tiny_llama)
    with pytest.raises(StudyError, match=r"^examples: model: input_ids are padded with 7, .* at 6"):
        prepare(study(tiny_llama, tiny_llama)).run()
    assert not (tiny_llama / "study.db").exists()


def load(document: dict) -> Examples:
    prepared = prepare(document)
    return prepared.examples(prepared.task.load())


def test_texts_that_are_cut_are_told(tiny_llama: Path, caplog: pytest.LogCaptureFixture) -> None:
    """In the log, the plan and the page of a study."""
    whole = plan(study(tiny_llama, tiny_llama))
    assert whole["cut"] == "nothing"
    assert whole["splits"]["train"]["cut_examples"] == 0
    document = {**study(tiny_llama, tiny_llama, "a very good film", max_length=4), **_ONE_TRIAL}
    told = "22 of 22 examples (100%) are too long and lose 20.0% of all tokens"
    planned = plan(document)
    assert planned["cut"] == told
    sizes = {"examples": 22, "tokens": 110, "cut_examples": 22, "cut_tokens": 22}
    assert planned["splits"]["train"] == sizes
    with caplog.at_level(logging.WARNING, "autopeft"):
        outcome = prepare(document).run()
    assert caplog.messages == [f"training data: {told}"]
    assert outcome.extent == planned["splits"]
    page = outcome.report(tiny_llama / "page").read_text()
    assert f"<dt>cut</dt><dd>{told}</dd>" in page
    assert "<dt>examples</dt><dd>22 train, 4 validation, 4 test</dd>" in page


def test_a_trainer_that_is_given_examples_loads_none(tiny_llama: Path) -> None:
    document = study(tiny_llama, tiny_llama)
    examples = load(document)
    task = TextClassification(data="gone.csv", max_length=16)
    assert Trainer(str(tiny_llama), task, examples=examples).label_names == ("bad", "good")
    with pytest.raises(StudyError, match=r"gone\.csv"):
        Trainer(str(tiny_llama), task)
