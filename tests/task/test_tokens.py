from __future__ import annotations

from pathlib import Path

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file, save_file

from autopeft.model.backbone import load_tokenizer
from autopeft.task.batches import Encoded
from autopeft.task.tokens import encoded
from tests.minilm import MINILM

TEXTS = ["a gem of a film", "dull", "two hours of boredom, badly acted"]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder."""
    monkeypatch.setenv("AUTOPEFT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def table() -> Dataset:
    return Dataset.from_dict({"text": TEXTS, "label": [1, 0, 0]})


def same(left: Encoded, right: Encoded) -> None:
    assert left.name == right.name
    assert left.padding == right.padding
    assert torch.equal(left.lengths, right.lengths)
    assert torch.equal(left.labels, right.labels)
    assert set(left.columns) == set(right.columns)
    for name, rows in left.columns.items():
        assert all(torch.equal(a, b) for a, b in zip(rows, right.columns[name], strict=True))


def tokens(cache: Path) -> int:
    return len(list(cache.glob("tokens/*/")))


def test_texts_are_tokenized_once(cache: Path, table: Dataset) -> None:
    tokenizer = load_tokenizer(MINILM)
    wanted = Encoded.of("train", table, tokenizer, 6)
    for _ in range(2):
        same(encoded("train", table, load_tokenizer(MINILM), 6), wanted)
        same(encoded("train", table, tokenizer, 6), wanted)
    assert tokens(cache) == 1
    (file,) = cache.glob("tokens/*/tokens.safetensors")
    content = load_file(file)
    content["column.input_ids"] += 1
    save_file(content, file)
    read = encoded("train", table, tokenizer, 6)
    assert torch.equal(read.columns["input_ids"][1], wanted.columns["input_ids"][1] + 1)


def test_what_decides_on_tokens_is_in_the_key(cache: Path, table: Dataset) -> None:
    tokenizer = load_tokenizer(MINILM)
    other = Dataset.from_dict({"text": [*TEXTS[:2], "dull "], "label": [1, 0, 0]})
    pairs = table.add_column("text_pair", TEXTS)
    tables = [(table, 6), (table, 5), (other, 6), (pairs, 6)]
    for number, (each, length) in enumerate(tables):
        found = encoded("train", each, tokenizer, length)
        same(found, Encoded.of("train", each, tokenizer, length))
        assert tokens(cache) == number + 1
    tokenizer.add_tokens(["boredom"])
    same(encoded("train", table, tokenizer, 6), Encoded.of("train", table, tokenizer, 6))
    assert tokens(cache) == len(tables) + 1


def test_labels_are_those_of_the_table(table: Dataset) -> None:
    tokenizer = load_tokenizer(MINILM)
    encoded("train", table, tokenizer, 6)
    relabelled = Dataset.from_dict({"text": TEXTS, "label": [0, 1, 1]})
    assert encoded("test", relabelled, tokenizer, 6).labels.tolist() == [0, 1, 1]


def test_tokens_without_a_cache_are_the_same(cache: Path, table: Dataset) -> None:
    cache.write_text("no folder")
    tokenizer = load_tokenizer(MINILM)
    same(encoded("train", table, tokenizer, 6), Encoded.of("train", table, tokenizer, 6))
