"""How far the exports of a trial agree, as the libraries load them that they are for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers as tf
from peft import PeftModel
from torch import Tensor

import autopeft
from autopeft.api.outcome import Outcome
from autopeft.core.errors import ExportError
from autopeft.model.backbone import load_reader
from autopeft.model.checkpoint import source_of
from autopeft.task.batches import Encoded
from autopeft.task.registry import task_of
from autopeft.task.task import Task

FORMS = ("native", "peft", "merged")
N_COMPARED = 32


def agreement(outcome: Outcome, trial: int, auto: str, folder: Path) -> dict[str, Any]:
    """Of each form the largest difference from `native`, and the share of equal predictions.

    Args:
        outcome: of a study.
        trial: its number.
        auto: the class of transformers that loads such models.
        folder: for the exports.

    Returns:
        By form; the reason where a form cannot hold the trial.
    """
    task = task_of(outcome.spec.task)
    reader = load_reader(outcome.spec.model, task.head)
    split = task.encode(task.load(), reader).splits["test"]
    found: dict[str, Any] = {}
    native: list[Tensor] = []
    for form in FORMS:
        try:
            made = _made(outcome, trial, form, folder / f"{trial}-{form}")
        except ExportError as error:
            found[form] = str(error)
            continue
        given = _outputs(_loaded(outcome, made, form, auto), task, split)
        native = native or given
        found[form] = _compared(native, given)
    return found


def _made(outcome: Outcome, trial: int, form: str, folder: Path) -> Path:
    if not folder.exists():
        autopeft.export(outcome, folder, trial=trial, format=form)
    return folder


def _loaded(outcome: Outcome, made: Path, form: str, auto: str) -> tf.PreTrainedModel:
    kind = getattr(tf, auto)
    if form == "merged":
        return kind.from_pretrained(made).eval()
    labels = outcome.identity["task.data"]["labels"]
    options = {"num_labels": len(labels)} if labels else {}
    base = source_of(outcome.spec.model, needs_weights=True)
    model = kind.from_pretrained(base, **options, ignore_mismatched_sizes=True)
    on_base = PeftModel.from_pretrained(model, made) if form == "peft" else None
    return (on_base or autopeft.load(model, made).model).eval()


@torch.no_grad()
def _outputs(model: tf.PreTrainedModel, task: Task, split: Encoded) -> list[Tensor]:
    """What a model returns for the first examples, one by one."""
    criterion, found = task.head.criterion, []
    for place in range(min(N_COMPARED, len(split))):
        batch = split.batch(torch.tensor([place]), torch.device("cpu"))
        found.append(
            criterion.outputs(model(**criterion.inputs(model, batch.inputs, batch.labels)))
        )
    return found


def _compared(native: Sequence[Tensor], given: Sequence[Tensor]) -> Mapping[str, float]:
    pairs = list(zip(native, given, strict=True))
    n_equal = sum(int((a.argmax(-1) == b.argmax(-1)).sum()) for a, b in pairs)
    return {
        "largest_output": max(float(b.abs().max()) for _, b in pairs),
        "largest_difference": max(float((a - b).abs().max()) for a, b in pairs),
        "equal_predictions": n_equal / sum(a[..., 0].numel() for a, _ in pairs),
    }
