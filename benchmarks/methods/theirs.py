"""A method with the layers of HF peft, trained as the trainer trains ours."""

from __future__ import annotations

from collections.abc import Iterator

import peft
import torch
from torch import nn
from torch.nn import functional as F
from transformers import AutoModelForSequenceClassification, set_seed
from transformers.modeling_outputs import SequenceClassifierOutput

from autopeft.core.config import LEARNING_RATE, PeftConfig
from autopeft.core.settings import TrainSettings
from autopeft.model.hub import locate, quiet
from autopeft.task.batches import Encoded, by_length, shuffled
from benchmarks.methods.entries import Entry
from benchmarks.trial_variants import MINILM

CPU = torch.device("cpu")
EVALUATED = 2048
"""Tokens of a batch of the test split."""


def model_of(entry: Entry, n_labels: int, seed: int) -> nn.Module:
    """HF peft's model in float32, which trains pooler and classifier as well."""
    assert entry.peft is not None
    name, options = entry.peft
    set_seed(seed)
    with quiet():
        model = AutoModelForSequenceClassification.from_pretrained(
            locate(MINILM, "model"), num_labels=n_labels
        )
        config = getattr(peft, name)(task_type="SEQ_CLS", **options)
        wrapped: nn.Module = peft.get_peft_model(model, config)
    for parameter in wrapped.get_submodule("base_model").bert.pooler.parameters():
        parameter.requires_grad_(True)
    return wrapped


def accuracy(
    model: nn.Module, config: PeftConfig, split: Encoded, test: Encoded, epochs: float, seed: int
) -> float:
    """On the test split, after AdamW with the rates of the configuration."""
    settings = TrainSettings(**dict(config.train))
    model.train()
    optimizer = torch.optim.AdamW(_groups(model, config, settings.learning_rate), weight_decay=0.0)
    rows_of_steps = shuffled(
        split.lengths, settings.batch_size, torch.Generator().manual_seed(seed)
    )
    n_steps = round(epochs * -(-len(split) // settings.batch_size))
    warmup = round(settings.warmup_ratio * n_steps + 0.499)
    trained = [p for p in model.parameters() if p.requires_grad]
    rates = [group["lr"] for group in optimizer.param_groups]
    for step in range(n_steps):
        rising = (step + 1) / (warmup + 1)
        factor = rising if step < warmup else 1 - (step - warmup) / max(1, n_steps - warmup)
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * factor
        batch = split.batch(next(rows_of_steps), CPU)
        F.cross_entropy(_said(model, batch.inputs), batch.labels).backward()
        nn.utils.clip_grad_norm_(trained, settings.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
    model.eval()
    with torch.no_grad():
        right = sum(_right(model, test, rows) for rows in by_length(test.lengths, EVALUATED))
    return right / len(test)


def _groups(model: nn.Module, config: PeftConfig, head_rate: float) -> Iterator[dict[str, object]]:
    """The parameters of the head, and those of the method with the rate of the placement."""
    (placement, *_) = config.placements
    rate = dict(placement.options).get(LEARNING_RATE) or head_rate
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    head = {name for name in trained if "classifier" in name or "pooler" in name}
    yield {"params": [trained[name] for name in head], "lr": head_rate}
    yield {"params": [p for name, p in trained.items() if name not in head], "lr": rate}


def _said(model: nn.Module, inputs: object) -> torch.Tensor:
    output: SequenceClassifierOutput = model(**inputs)  # type: ignore[arg-type]
    assert output.logits is not None
    return output.logits


def _right(model: nn.Module, test: Encoded, rows: torch.Tensor) -> int:
    batch = test.batch(rows, CPU)
    return int((_said(model, batch.inputs).argmax(-1) == batch.labels).sum())
