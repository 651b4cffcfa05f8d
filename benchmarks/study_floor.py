"""The least that a study can cost here: operations that cannot be avoided, at the measured rate.

Counted are the matrix products of forward and backward down to the lowest tuned layer, in all
epochs, and those of one evaluation, each text at its own length. The layers below the lowest tuned
one are counted once for a study, for the texts of all its trials, since their outputs never change,
and of the last feed-forward network only the position that the head reads. What the last attention
computes for the other positions is counted, which of six layers is some 3 per cent.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from multiprocessing.synchronize import Barrier

    from autopeft.core.config import PeftConfig
    from autopeft.model.backbone import Backbone

LENGTHS = (8, 16, 24)
"""Tokens at which operations are counted; they are a polynomial of degree 2 in the length."""

SHAPES = {"model": (1024, 384, 1536), "square": (2048, 2048, 2048)}
"""Rows, inputs and outputs of the products that are timed."""

WINDOWS, WINDOW_SECONDS = 5, 0.5


@dataclass(frozen=True)
class Texts:
    """Lengths in tokens of what is trained and what is evaluated."""

    train: Sequence[int]
    validation: Sequence[int]


def unavoidable(
    backbone: Backbone, configs: Iterable[PeftConfig], texts: Texts, epochs: int
) -> dict[str, int]:
    """Operations of a study, by part; a multiplication with its addition counts as two.

    Args:
        backbone: on the meta device.
        configs: each trained for all epochs and evaluated once.
        texts: of both splits.
        epochs: of each configuration.
    """
    parts = {"training": 0.0, "evaluation": 0.0, "lower layers": 0.0}
    for config in configs:
        lower, forward, step = _polynomials(backbone, config)
        parts["training"] += epochs * _total(step - lower, texts.train)
        parts["evaluation"] += _total(forward - lower, texts.validation)
        below = _total(lower, (*texts.train, *texts.validation))
        parts["lower layers"] = max(parts["lower layers"], below)
    return {name: round(value) for name, value in parts.items()}


def _polynomials(backbone: Backbone, config: PeftConfig) -> tuple[Any, Any, Any]:
    """Coefficients of the operations of one text in its length.

    Those of the layers below the lowest tuned one, of a forward pass, and of a whole step.
    """
    from autopeft.memory.flops import count_flops

    counted = [count_flops(backbone, config, 1, length) for length in LENGTHS]
    kinds = ([getattr(c, kind) for c in counted] for kind in ("lower", "forward", "training_step"))
    lower, forward, step = (np.polyfit(LENGTHS, values, 2) for values in kinds)
    return lower, forward, step


def _total(polynomial: Any, lengths: Sequence[int]) -> float:
    return float(np.polyval(polynomial, np.asarray(lengths, dtype=np.float64)).sum())


def rates(workers: int, seconds: float = WINDOW_SECONDS) -> dict[str, float]:
    """Operations a second of one thread while all workers multiply, by shape.

    In the fastest precision of the device; the median over workers and windows.
    """
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(workers)
    with context.Pool(workers, _share, (barrier,)) as pool:
        of_workers = pool.starmap(_rates, [(seconds,)] * workers, chunksize=1)
    return {name: median(rate for each in of_workers for rate in each[name]) for name in SHAPES}


_barrier: Barrier


def _share(barrier: Barrier) -> None:
    global _barrier
    _barrier = barrier


def _rates(seconds: float) -> Mapping[str, list[float]]:
    import torch

    from autopeft.model.precision import fast_dtype

    torch.set_num_threads(1)
    dtype = fast_dtype(torch.device("cpu"))
    by_shape: dict[str, list[float]] = {}
    for name, (rows, inputs, outputs) in SHAPES.items():
        x, weight = torch.randn(rows, inputs).to(dtype), torch.randn(outputs, inputs).to(dtype)
        _barrier.wait()
        by_shape[name] = [
            2 * rows * inputs * outputs / _seconds(x, weight, seconds) for _ in range(1 + WINDOWS)
        ][1:]
    return by_shape


def _seconds(x: Any, weight: Any, seconds: float) -> float:
    """Of one product, the mean over so long."""
    from torch.nn import functional as F

    start, count = time.perf_counter(), 0
    while (now := time.perf_counter() - start) < seconds or count == 0:
        F.linear(x, weight)
        count += 1
    return now / count
