from __future__ import annotations

import os
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from autopeft.core.errors import StudyError
from autopeft.core.settings import BackboneSettings
from autopeft.model.backbone import load_tokenizer, meta_backbone
from autopeft.model.head import IGNORED
from autopeft.task.batches import Encoded, check_embeddings
from autopeft.task.causal_lm import CausalLM
from autopeft.task.conversations import Sample
from autopeft.task.data import Data
from autopeft.task.tokens import encoded
from tests.minilm import MINILM
from tests.task.test_causal_lm import CHAT, MARKED, PLAIN
from tests.task.test_causal_lm import tokenizer as chat_tokenizer

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
    assert left.extent == right.extent
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


def test_a_damaged_file_is_made_anew(cache: Path, table: Dataset) -> None:
    tokenizer = load_tokenizer(MINILM)
    encoded("train", table, tokenizer, 6)
    (file,) = cache.glob("tokens/*/tokens.safetensors")
    for size in (100, 0):
        os.truncate(file, size)
        same(encoded("train", table, tokenizer, 6), Encoded.of("train", table, tokenizer, 6))
    for header in (bytes(8), b"\xff" * 8):  # as long as it was
        file.write_bytes(header + file.read_bytes()[8:])
        same(encoded("train", table, tokenizer, 6), Encoded.of("train", table, tokenizer, 6))


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


def test_rows_without_a_token_are_refused(tiny_llama: Path, cache: Path) -> None:
    tokenizer = load_tokenizer(str(tiny_llama))
    table = Dataset.from_dict({"text": ["good film", "", "bad", " "], "label": [0, 1, 0, 1]})
    reason = "^task.data: 2 of 4 rows of the split 'test' have no token .*, first row 2: ''$"
    for _ in range(2):
        with pytest.raises(StudyError, match=reason):
            encoded("test", table, tokenizer, 6)
    assert tokens(cache) == 0
    pairs = table.add_column("text_pair", ["a", "a film", "", "very"])
    found = encoded("train", pairs, tokenizer, 6)
    assert found.lengths.tolist() == [3, 2, 1, 1]
    assert all(row.dtype == torch.int64 for rows in found.columns.values() for row in rows)
    bracketed = encoded("train", table, load_tokenizer(MINILM), 6)
    assert bracketed.lengths.tolist() == [4, 2, 3, 2]


@pytest.mark.parametrize("pairs", [False, True])
def test_texts_that_are_cut_are_counted(table: Dataset, pairs: bool) -> None:
    tokenizer = load_tokenizer(MINILM)
    if pairs:
        table = table.add_column("text_pair", table["text"][::-1])
    lengths = encoded("train", table, tokenizer, 64).lengths
    for limit in (64, int(lengths.max()), int(lengths.max()) - 1, int(lengths.min()) - 1):
        lost = (lengths - limit).clamp(min=0)
        wanted = {
            "examples": len(table),
            "tokens": int(lengths.sum()),
            "cut_examples": int((lost > 0).sum()),
            "cut_tokens": int(lost.sum()),
        }
        assert [encoded("train", table, tokenizer, limit).extent for _ in range(2)] == [wanted] * 2


def test_tokens_without_an_embedding_are_refused(tiny_llama: Path, table: Dataset) -> None:
    tokenizer, model = load_tokenizer(str(tiny_llama)), on_meta(tiny_llama)
    fine = encoded("train", table, tokenizer, 6)
    check_embeddings([fine], model)
    tokenizer.add_tokens(["dull"])
    strange = encoded("validation", table, tokenizer, 6)
    reason = "^model: input_ids of the split 'validation' go up to 7, but the embedding .* at 6"
    with pytest.raises(StudyError, match=reason):
        check_embeddings([fine, strange], model)
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    short = Dataset.from_dict({"text": ["good"], "label": [0]})
    with pytest.raises(StudyError, match=r"^model: input_ids are padded with 8, but .* at 6"):
        check_embeddings([encoded("test", short, tokenizer, 6)], model)


def test_token_types_without_an_embedding_are_refused(table: Dataset) -> None:
    model = on_meta(MINILM)
    pairs = encoded("train", table.add_column("text_pair", TEXTS), load_tokenizer(MINILM), 6)
    check_embeddings([pairs], model)
    model.config.type_vocab_size = 1
    with pytest.raises(StudyError, match=r"^model: token_type_ids of the split 'train' go up to 1"):
        check_embeddings([pairs], model)


def chat_task(**options: Any) -> CausalLM:
    return CausalLM(data="-", **options)


def chats() -> Data:
    """Conversations, the same in every split."""
    rows = [Sample(messages=CHAT[:n]).dumps() for n in (2, 4)]
    table = Dataset.from_dict({"text": rows})
    return Data(table, table, table, label_names=())


def test_conversations_go_through_the_template_once(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are cut, and prompts cut off, afterwards."""
    asked = chat_task(predict_with_generate=True)
    wanted = asked.encode(chats(), chat_tokenizer(PLAIN)).splits
    assert tokens(cache) == 1
    monkeypatch.setattr("autopeft.task.causal_lm.tokens_of", None)
    found = asked.encode(chats(), chat_tokenizer(PLAIN)).splits
    for split, before in wanted.items():
        after = found[split]
        for name in ("input_ids", "attention_mask"):
            assert ids_of(after.columns[name]) == ids_of(before.columns[name])
        assert ids_of(after.labels) == ids_of(before.labels)
        assert after.extent == before.extent
        if split != "train":
            assert ids_of(after.answers.prompts) == ids_of(before.answers.prompts)
            assert after.answers.texts == before.answers.texts == ["yes", "yes really"]
    short = chat_task(max_length=9).encode(chats(), chat_tokenizer(PLAIN)).splits["train"]
    whole = ids_of(wanted["train"].labels)
    assert [len(row) for row in whole] == [9, 16]
    assert ids_of(short.labels) == [whole[0], [*whole[1][:8], IGNORED]]
    assert tokens(cache) == 1


def test_what_decides_on_conversations_is_in_the_key(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dated = "{{ strftime_now('%d') }} " + PLAIN
    keys = [(PLAIN, None), (PLAIN, "all"), (MARKED, None), (dated, None)]
    for number, (template, loss_on) in enumerate(keys, 1):
        for _ in range(2):
            chat_task(loss_on=loss_on).encode(chats(), chat_tokenizer(template))
            assert tokens(cache) == number
    monkeypatch.setattr("autopeft.task.causal_lm.date", Tomorrow)
    for template, n_more in ((PLAIN, 0), (dated, 1)):
        chat_task().encode(chats(), chat_tokenizer(template))
        assert tokens(cache) == len(keys) + n_more
    other = chat_tokenizer(PLAIN)
    other.add_tokens(["film"])
    chat_task().encode(chats(), other)
    assert tokens(cache) == len(keys) + 2


class Tomorrow(date):
    @classmethod
    def today(cls) -> date:
        return date.fromordinal(date.today().toordinal() + 1)


def ids_of(rows: Any) -> list[list[int]]:
    return [ids.tolist() for ids in rows]


def on_meta(reference: str | Path) -> PreTrainedModel:
    return meta_backbone(str(reference), BackboneSettings(), head="text-classification").model
