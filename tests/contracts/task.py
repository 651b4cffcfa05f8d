"""What every task owes the trainer and the prediction of memory; run over the whole registry."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from autopeft.core.config import PeftConfig, Placement
from autopeft.core.order import Order
from autopeft.core.settings import BackboneSettings
from autopeft.memory.predict import predict_memory
from autopeft.model.backbone import Backbone, load_backbone, meta_backbone
from autopeft.task.registry import TASKS, task_of
from autopeft.task.task import Task
from autopeft.train.trainer import Trainer
from tests import tiny
from tests.memory.allocator import measure_memory
from tests.small_models import save_decoder, save_translator, save_viewer, words_tokenizer

WORDS = ["<eos>", "<unk>", "good", "bad", "film", "a", "very", "yes", "no"]
TEXTS = [f"a {'very ' * (i % 5)}{('good', 'bad')[i % 2]} film" for i in range(40)]


@dataclass(frozen=True)
class Case:
    """An example of a task.

    Attributes:
        rows: of its data, of which a tenth each is for validation and test.
        model: makes the backbone in a folder and gives its reference.
        options: of the task beside its type and data.
        files: writes what the rows name into the folder of the data.
    """

    rows: list[dict[str, Any]]
    model: Callable[[Path], str]
    options: Mapping[str, Any]
    files: Callable[[Path], None] = lambda folder: None


def _minilm(folder: Path) -> str:
    return tiny.MODEL


def _llama(folder: Path) -> str:
    """A small decoder without dropout."""
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3}
    tokenizer = words_tokenizer(WORDS)
    return str(save_decoder(folder / "model", tokenizer, **sizes, initializer_range=0.3))


def _bart(folder: Path) -> str:
    """A small model with two stacks without dropout."""
    return str(save_translator(folder / "model", WORDS))


def _vit(folder: Path) -> str:
    """A small model of images."""
    return str(save_viewer(folder / "model"))


def _pictures(folder: Path) -> None:
    """Bright ones and dark ones."""
    noise = np.random.default_rng(0).integers(0, 100, (40, 20, 24, 3), dtype=np.uint8)
    for i, pixels in enumerate(noise):
        Image.fromarray(pixels + np.uint8(155 * (i % 2))).save(folder / f"{i}.png")


def _texts(label: Callable[[int], Any]) -> list[dict[str, Any]]:
    return [{"text": f"{text} {i}", "label": label(i)} for i, text in enumerate(TEXTS)]


CASES: Mapping[str, Case] = {
    "text-classification": Case(_texts(lambda i: ("yes", "no")[i % 2]), _minilm, {}),
    "multi-label": Case(
        _texts(lambda i: ["a"] if i % 3 else ["a", "b"] if i % 2 else []),
        _minilm,
        {"type": "text-classification", "problem": "multi_label"},
    ),
    "regression": Case(
        _texts(lambda i: i % 7 / 7),
        _minilm,
        {"type": "text-classification", "problem": "regression"},
    ),
    "balanced": Case(
        _texts(lambda i: ("yes", "no")[i % 6 > 0]),
        _minilm,
        {"type": "text-classification", "class_weight": "balanced"},
    ),
    "token-classification": Case(
        [
            {"tokens": text.split(), "tags": ["O" if len(w) < 5 else "B-X" for w in text.split()]}
            for text in TEXTS
        ],
        _minilm,
        {},
    ),
    "causal-lm": Case(
        [{"prompt": text, "completion": ("yes", "no very")[i % 2]} for i, text in enumerate(TEXTS)],
        _llama,
        {"predict_with_generate": True},
    ),
    "image-classification": Case(
        [{"image": f"{i}.png", "label": ("dark", "bright")[i % 2]} for i in range(40)],
        _vit,
        {},
        _pictures,
    ),
    "multiple-choice": Case(
        [
            {
                "question": text,
                "choices": ["it is good", "it is bad"],
                "label": "AB"[i % 2],
            }
            for i, text in enumerate(TEXTS)
        ],
        _minilm,
        {"n_choices": 2},
    ),
    "question-answering": Case(
        [
            {
                "question": "how is the film",
                "context": f"film {i} is {text[2:]}",
                "answers": [] if i % 5 == 4 else [("good", "bad")[i % 2]],
            }
            for i, text in enumerate(TEXTS)
        ],
        _minilm,
        {"max_length": 24},
    ),
    "seq2seq-lm": Case(
        [{"source": text, "target": ("yes", "no very")[i % 2]} for i, text in enumerate(TEXTS)],
        _bart,
        {"predict_with_generate": True},
    ),
}
"""At least one of every type; a case without a type in its options is named by it."""


class Bench:
    """A task with its trainer, whose backbone has no dropout."""

    def __init__(self, name: str, folder: Path) -> None:
        case = CASES[name]
        case.files(folder)
        data = folder / "data.jsonl"
        data.write_text("\n".join(map(json.dumps, case.rows)), encoding="utf-8")
        options = {"type": name, "max_length": 16, **case.options}
        self.task: Task = task_of({"data": str(data), **options})
        self.model = case.model(folder)
        self.trainer = Trainer(self.model, self.task, threads=1)
        for module in self.trainer._backbone(lora()).model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0

    def ended(self, configs: list[PeftConfig], **order: Any) -> list[Mapping[str, float]]:
        """The metrics of each at its end."""
        reports = list(self.trainer(configs, Order((0.5, 1.0), seed=3, **order)))
        last = {report.member: report.metrics for report in reports}
        return [last[member] for member in range(len(configs))]

    def backbones(self) -> tuple[Backbone, Backbone]:
        """Without weights, and with them."""
        settings = BackboneSettings(dtype="float32")
        n_labels = max(1, len(self.trainer.label_names))
        return (
            meta_backbone(self.model, settings, head=self.task.head, n_labels=n_labels),
            load_backbone(self.model, self.task.head, settings, n_labels=n_labels, device="cpu"),
        )


def lora(r: int = 4, **train: Any) -> PeftConfig:
    options = {"targets": ("q", "v"), "r": r, "lora_alpha": None, "lora_dropout": 0.0}
    settings = {"learning_rate": 1e-2, "batch_size": 4, **train}
    return PeftConfig.of([Placement.of("lora", range(3), options)], settings, FLOAT32)


FLOAT32 = {"dtype": "float32"}

Check = Callable[[Bench, Path], None]


def tells_every_number(bench: Bench, folder: Path) -> None:
    """Every number that an objective may name is finite, on both splits."""
    (metrics,) = bench.ended([lora()], tests=True)
    for name in bench.task.goals:
        assert math.isfinite(metrics[name])
        assert math.isfinite(metrics[f"test_{name}"])
    assert metrics["loss"] == metrics["validation_loss"]


def micro_batches_make_a_batch(bench: Bench, folder: Path) -> None:
    """The gradient does not hang on how a batch is cut, whatever its rows weigh."""
    whole, parts = lora(batch_size=8), lora(batch_size=2, gradient_accumulation_steps=4)
    (expected,), (given,) = bench.ended([whole]), bench.ended([parts])
    assert given["loss"] == pytest.approx(expected["loss"], rel=1e-4)
    assert given["train_loss"] == pytest.approx(expected["train_loss"], rel=1e-4)


def members_learn_what_they_learn_alone(bench: Bench, folder: Path) -> None:
    """Packs share passes, not gradients."""
    configs = [lora(), lora(8, learning_rate=5e-3), lora(2, batch_size=8)]
    together = bench.ended(configs)
    for config, metrics in zip(configs, together, strict=True):
        (alone,) = bench.ended([config])
        assert metrics["loss"] == pytest.approx(alone["loss"], rel=1e-3)


def pauses_change_nothing(bench: Bench, folder: Path) -> None:
    """A training that goes on from its rung ends where it would have ended."""
    (expected,) = bench.ended([lora()])
    order = {"seed": 3, "folder": str(folder)}
    first = next(iter(bench.trainer([lora()], Order((0.5, 1.0), **order))))
    assert first.fidelity == 0.5
    (*_, last) = bench.trainer([lora()], Order((0.5, 1.0), **order, reached=0.5))
    assert last.metrics["loss"] == pytest.approx(expected["loss"], rel=1e-6)


def memory_is_predicted(bench: Bench, folder: Path) -> None:
    """The peak of a step is that of the allocator's own events."""
    meta, real = bench.backbones()
    size = {"batch_size": 8, "sequence_length": 16}
    predicted = predict_memory(meta, lora(), **size, device="cpu").peak
    assert predicted == pytest.approx(measure_memory(real, [lora()], **size), rel=0.01)


CHECKS: tuple[Check, ...] = (
    tells_every_number,
    micro_batches_make_a_batch,
    members_learn_what_they_learn_alone,
    pauses_change_nothing,
    memory_is_predicted,
)


def covers() -> bool:
    """Whether every type of task has a case, but for that which trains by itself."""
    types = {case.options.get("type", name) for name, case in CASES.items()}
    return types == TASKS.keys() - {"custom"}
