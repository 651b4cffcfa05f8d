"""One training with HF `Trainer`, with its defaults or tuned by hand.

Imports stand inside the functions, so that the clock of a trial sees them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datasets import Dataset
    from torch import nn
    from transformers import Trainer, TrainingArguments

Row = dict[str, Any]


@dataclass(frozen=True)
class Form:
    """What is not left to the defaults of `TrainingArguments`.

    Attributes:
        max_length: tokens after which a text is cut.
        warmup: share of the steps.
        group_by_length: batches of similar length; evaluation stays in batches of 8, which are
            faster here than 32.
        bf16: training and evaluation under autocast.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    max_length: int
    warmup: float
    seed: int
    group_by_length: bool
    bf16: bool


def train(model: nn.Module, tokenizer_of: str, splits: Mapping[str, Dataset], form: Form) -> Row:
    """Seconds of training and of evaluation, the last accuracy, the trained parameters."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = _trainer(model, tokenizer_of, splits, _arguments(folder, form), form)
        whole = trainer.train().metrics["train_runtime"]
    evaluations = [line for line in trainer.state.log_history if "eval_runtime" in line]
    evaluation = sum(line["eval_runtime"] for line in evaluations)
    return {
        "training": whole - evaluation,
        "evaluation": evaluation,
        "accuracy": evaluations[-1]["eval_accuracy"],
        "trained_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
    }


def _arguments(folder: str, form: Form) -> TrainingArguments:
    from transformers import TrainingArguments

    return TrainingArguments(
        output_dir=folder,
        num_train_epochs=form.epochs,
        per_device_train_batch_size=form.batch_size,
        learning_rate=form.learning_rate,
        warmup_steps=form.warmup,
        eval_strategy="epoch",
        seed=form.seed,
        use_cpu=True,
        disable_tqdm=True,
        bf16=form.bf16,
        train_sampling_strategy="group_by_length" if form.group_by_length else "random",
    )


def _trainer(
    model: nn.Module,
    tokenizer_of: str,
    splits: Mapping[str, Dataset],
    arguments: TrainingArguments,
    form: Form,
) -> Trainer:
    """Its collator pads each batch to the longest of its texts."""
    from transformers import AutoTokenizer, Trainer

    tokenizer = AutoTokenizer.from_pretrained(tokenizer_of)

    def tokens(rows: Mapping[str, Any]) -> Any:
        return tokenizer(rows["text"], truncation=True, max_length=form.max_length)

    return Trainer(
        model,
        arguments,
        train_dataset=splits["train"].map(tokens, batched=True),
        eval_dataset=splits["validation"].map(tokens, batched=True),
        processing_class=tokenizer,
        compute_metrics=accuracy,
    )


def accuracy(predicted: Any) -> dict[str, float]:
    """Of logits (examples, labels), which HF's prefixes return in a tuple with their cache."""
    outputs = predicted.predictions
    logits = outputs[0] if isinstance(outputs, tuple) else outputs
    return {"accuracy": float((logits.argmax(-1) == predicted.label_ids).mean())}
