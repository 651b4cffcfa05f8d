"""Texts from other texts: forms of data, and studies from file to export."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf
from torch.nn import functional as F

import autopeft
from autopeft.api.run import prepare
from autopeft.core.errors import StudyError
from autopeft.model.backbone import load_tokenizer
from autopeft.task.registry import task_of
from tests.exports import exported
from tests.small_models import save_translator

WORDS = ["<eos>", "<unk>", "one", "two", "three", "eins", "zwei", "drei", "count:"]
PAIRS = [
    (f"{'one ' * n}{word}", target)
    for n in range(15)
    for word, target in (("two", "zwei"), ("three", "drei drei"))
]


def lines(folder: Path, rows: list[dict[str, Any]]) -> str:
    path = folder / "data.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    ("row", "options"),
    [
        ({"source": "one", "target": "eins"}, {}),
        ({"document": "one", "summary": "eins"}, {}),
        ({"article": "one", "highlights": "eins", "id": "7"}, {}),
        ({"a": "one", "summary": "eins"}, {"source_column": "a"}),
        ({"a": "one", "b": "eins"}, {"source_column": "a", "target_column": "b"}),
        (
            {"translation": {"en": "one", "de": "eins"}},
            {"source_column": "translation.en", "target_column": "translation.de"},
        ),
    ],
)
def test_forms_of_pairs(row: dict[str, Any], options: dict[str, str], tmp_path: Path) -> None:
    rows = [json.loads(json.dumps(row).replace("one", f"one {i}")) for i in range(5)]
    options = {**options, "source_prefix": "count: "}
    data = task_of({"type": "seq2seq-lm", "data": lines(tmp_path, rows), **options}).load()
    assert data.train[0]["text"].startswith("count: one ")
    assert data.train[0]["label"] == "eins"


@pytest.mark.parametrize(
    ("rows", "options", "reason"),
    [
        ([{"a": "x", "b": "y"}], {}, r"^task: no columns are known.*there are a, b$"),
        ([{"source": "x", "target": "y"}], {"source_column": "sorce"}, r"^task.source_column: unk"),
        ([{"source": "x", "target": " "}], {}, r"first row 1: target must be a text"),
        (
            [{"t": {"en": "x", "de": "y"}}],
            {"source_column": "t.en", "target_column": "t.fr"},
            r"first row 1: t.fr must be a text, got None",
        ),
    ],
)
def test_what_is_none_is_told(
    rows: list[dict[str, Any]], options: dict[str, str], reason: str, tmp_path: Path
) -> None:
    task = task_of({"type": "seq2seq-lm", "data": lines(tmp_path, rows * 5), **options})
    with pytest.raises(StudyError, match=reason):
        task.load()


@pytest.mark.parametrize("kind", ["bart", "t5"])
def test_the_loss_is_that_of_transformers(kind: str, tmp_path: Path) -> None:
    """Summed over tokens, whatever the order of what a decoder reads and writes."""
    folder = save_translator(tmp_path / "model", WORDS, kind)
    rows = [{"source": a, "target": b} for a, b in PAIRS]
    task = task_of({"type": "seq2seq-lm", "data": lines(tmp_path, rows)})
    train = task.encode(task.load(), load_tokenizer(str(folder))).splits["train"]
    batch = train.batch(torch.arange(len(train)), torch.device("cpu"))
    model = tf.AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
    criterion = task.head.criterion
    with torch.no_grad():
        outputs = model(**criterion.inputs(model, batch.inputs, batch.labels)).logits
        expected = model(**batch.inputs, labels=batch.labels).loss
    total = criterion.losses(outputs, batch.labels).sum() / criterion.weights(batch.labels).sum()
    assert torch.isclose(total, expected, rtol=1e-5)
    assert F.cosine_similarity(outputs[0, 0], outputs[0, 1], dim=0) < 1


@pytest.mark.parametrize(
    ("options", "name", "read"),
    [
        ({"max_target_length": 200}, "max_target_length", 8),
        ({"max_target_length": 64, "max_new_tokens": 101}, "max_new_tokens", 8),
        ({"max_target_length": 64, "max_length": 600}, None, 600),
    ],
)
def test_what_is_written_has_positions_or_is_refused(
    options: dict[str, int], name: str | None, read: int, tmp_path: Path
) -> None:
    """Targets may be longer than sources, of which models with few positions read the beginning."""
    rows = [{"source": f"{'one ' * 600}{n}", "target": "zwei " * 100} for n in range(20)]
    for kind in ("bart", "t5"):
        study = counting(tmp_path, save_translator(tmp_path / kind, WORDS, kind), 1e-3)
        given = {"data": lines(tmp_path, rows), "max_length": 8, **options}
        prepared = prepare({**study, "task": {**study["task"], **given}})
        data = prepared.task.load()
        if kind == "bart" and name is not None:
            reason = f"task.{name}: the decoder takes 64 tokens, got 101 in the split"
            with pytest.raises(StudyError, match=reason):
                prepared.examples(data)
            continue
        most = 64 if kind == "bart" else sys.maxsize
        longest = max(options["max_target_length"], given["max_length"])
        assert prepared.setting.sequence_length == min(most, longest)
        train = prepared.examples(data).splits["train"]
        assert max(map(len, train.labels)) == min(101, options["max_target_length"])
        assert max(map(len, train.columns["input_ids"])) == min(most, read)


def test_texts_are_tokenized_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sources and targets of three splits, and those of another length."""
    monkeypatch.setenv("AUTOPEFT_CACHE", str(tmp_path / "cache"))
    tokenizer = load_tokenizer(str(save_translator(tmp_path / "model", WORDS)))
    rows = [{"source": a, "target": b} for a, b in PAIRS]
    study = {"type": "seq2seq-lm", "data": lines(tmp_path, rows), "predict_with_generate": True}
    found = []
    for max_length, n_files in ((8, 6), (8, 6), (9, 9)):
        task = task_of({**study, "max_length": max_length})
        found.append(task.encode(task.load(), tokenizer).splits["test"])
        assert len(list(tmp_path.glob("cache/tokens/*/"))) == n_files
    first, again, longer = found
    for one, other in (
        (first.columns["input_ids"], again.columns["input_ids"]),
        (first.labels, again.labels),
        (first.answers.prompts, again.answers.prompts),
    ):
        assert [ids.tolist() for ids in one] == [ids.tolist() for ids in other]
    assert first.extent == again.extent
    assert first.extent["tokens"] == longer.extent["tokens"]


def counting(folder: Path, model: Path, learning_rate: float) -> dict[str, Any]:
    """A study of texts from texts, files in a folder."""
    rows = [{"source": a, "target": b} for a, b in PAIRS]
    return {
        "name": "count",
        "model": str(model),
        "task": {
            "type": "seq2seq-lm",
            "data": lines(folder, rows),
            "max_length": 16,
            "validation_fraction": 0.3,
        },
        "space": {
            "name": "mix",
            "place": [
                {"method": "lora", "r": 8, "targets": [*"qkvo", "up", "down"]},
                {"method": "adapter", "size": {"choice": [0, 8]}},
            ],
            "train": {"learning_rate": learning_rate, "batch_size": 4},
        },
        "objectives": [
            {"name": "exact_match", "goal": "maximize", "reference": 0.0},
            {"name": "trainable_params", "goal": "minimize", "known": True, "reference": 1e8},
        ],
        "search": {"n_trials": 2, "n_finalists": 0},
        "fidelity": {"epochs": 16.0},
        "storage": f"sqlite:///{folder}/study.db",
        "output": str(folder / "out"),
    }


@pytest.mark.parametrize(("kind", "learning_rate"), [("bart", 2e-2), ("t5", 5e-2)])
def test_a_study_ends_in_exports_that_write_the_same(
    kind: str, learning_rate: float, tmp_path: Path
) -> None:
    """Parts in both stacks and in the attention between them."""
    folder = save_translator(tmp_path / "model", WORDS, kind)
    study = counting(tmp_path, folder, learning_rate)
    outcome = autopeft.run(study)
    assert [t.state for t in outcome.trials] == ["complete"] * 2
    (plain,) = (t for t in outcome.trials if len({p.method for p in t.config.placements}) == 1)
    tokenizer = tf.AutoTokenizer.from_pretrained(folder)
    held = task_of(study["task"]).load().validation
    asked = tokenizer(held["text"][:], padding=True, return_tensors="pt")
    start = torch.zeros(len(held), 1, dtype=torch.long)
    said, logits = {}, {}
    auto = tf.AutoModelForSeq2SeqLM
    for form, model in exported(outcome, plain.number, auto, folder, tmp_path):
        with torch.no_grad():
            logits[form] = model(**asked, decoder_input_ids=start).logits
            ids = model.generate(**asked, max_new_tokens=5, do_sample=False)
            said[form] = [text.strip() for text in tokenizer.batch_decode(ids, True)]
    assert said["native"] == said["peft"] == said["merged"]
    right = [given == wanted for given, wanted in zip(said["peft"], held["label"], strict=True)]
    assert sum(right) / len(right) == plain.values["exact_match"] > 0.5
    assert torch.allclose(logits["native"], logits["peft"], atol=1e-4)
    assert torch.allclose(logits["native"], logits["merged"], atol=1e-3)
