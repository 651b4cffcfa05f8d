"""Trainings as users write them, for `function` of a study."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from datasets import Dataset
from transformers import Trainer, TrainingArguments
from trl import SFTConfig, SFTTrainer

from autopeft import Run

ROWS = [
    {"prompt": f"is the film {'really ' * (i % 5)}{word}", "completion": f" {answer}"}
    for i in range(8)
    for word, answer in (("good", "yes"), ("bad", "no"))
]


def with_trl(run: Run) -> Iterator[dict[str, float]]:
    """Supervised fine-tuning by TRL, judged by its own loss."""
    for epochs in run.rungs:
        trainer = SFTTrainer(
            model=run.model,
            processing_class=run.reader,
            train_dataset=Dataset.from_list(ROWS),
            eval_dataset=Dataset.from_list(ROWS[:4]),
            args=SFTConfig(
                output_dir="unused",
                num_train_epochs=epochs,
                learning_rate=run.train.learning_rate,
                per_device_train_batch_size=run.train.batch_size,
                seed=run.seed,
                report_to=[],
                save_strategy="no",
                disable_tqdm=True,
                use_cpu=True,
                bf16=False,
                gradient_checkpointing=False,
            ),
        )
        trainer.train()
        loss = trainer.evaluate()["eval_loss"]
        yield {"sft_loss": loss, "test_sft_loss": loss}


def with_trainer(run: Run) -> Iterator[dict[str, float]]:
    """The Trainer of transformers on token ids, rung by rung."""
    rows = [run.reader(r["prompt"] + r["completion"])["input_ids"] for r in ROWS]
    data = [{"input_ids": torch.tensor(ids), "labels": torch.tensor(ids)} for ids in rows]
    for _ in run.rungs:
        arguments = TrainingArguments(
            output_dir="unused",
            num_train_epochs=1,
            per_device_train_batch_size=1,
            learning_rate=run.train.learning_rate,
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
            use_cpu=True,
        )
        trained = Trainer(model=run.model, args=arguments, train_dataset=data).train()
        yield {"sft_loss": trained.training_loss}


def that_stops(run: Run) -> Iterator[dict[str, float]]:
    """Two numbers too few."""
    yield {"sft_loss": 1.0}


def that_diverges(run: Run) -> Iterator[dict[str, float]]:
    """No number."""
    for _ in run.rungs:
        yield {"sft_loss": math.nan}


def that_tells_nothing(run: Run) -> Iterator[dict[str, float]]:
    """Another number."""
    yield {"loss": 1.0}


def that_takes_nothing() -> Iterator[dict[str, float]]:
    """Not even a run."""
    yield {"sft_loss": 1.0}


def no_generator(run: Run) -> None:
    """Nothing."""


def share_of_yes(wanted: list[str], given: list[str]) -> float:
    """A metric of the user's own: how many of those that are yes are said to be."""
    said = [b for a, b in zip(wanted, given, strict=True) if a == "yes"]
    return said.count("yes") / len(said) if said else 1.0


def overlap(wanted: list[list[str]], given: list[list[str]]) -> float:
    """Another one, of lists of names."""
    pairs = zip(wanted, given, strict=True)
    return sum(len({*a} & {*b}) for a, b in pairs) / max(1, sum(map(len, wanted)))
