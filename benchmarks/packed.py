"""Training steps of packs on random texts, timed and weighed."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from autopeft.core.config import PeftConfig, Placement
from autopeft.core.order import Order
from autopeft.core.settings import TrainSettings
from autopeft.core.shape import Shape
from autopeft.method.count import trained_elements
from autopeft.method.member import draw
from autopeft.method.registry import lowest_layer
from autopeft.model.backbone import Backbone
from autopeft.space import SearchSpace
from autopeft.task.batches import Encoded
from autopeft.train.descent import Descent
from autopeft.train.hidden import HiddenStates
from autopeft.train.passes import Passes
from tests.memory.allocator import measured_peak

WARM_STEPS, MEMORY_STEPS = 2, 3

OPTIONS: dict[str, dict[str, Any]] = {
    "lora": {"targets": ("q", "v"), "r": 8, "lora_alpha": None, "lora_dropout": 0.0},
    "adapter": {
        "form": "sequential",
        "at": "ffn",
        "size": 32,
        "activation": "relu",
        "bias": True,
        "scale": 1.0,
    },
}


@dataclass(frozen=True)
class Texts:
    """A batch of one member; every second text is one token shorter than `tokens`."""

    batch_size: int
    tokens: int


class Training:
    """Some configurations on one backbone, ready to take steps together.

    Steps are those of the trainer, from the first layer on and without its cache.

    Args:
        on: quickened, as the trainer has it.
        configs: each has its own batches, of the size that it says.
        split: training examples.
    """

    def __init__(self, on: Backbone, configs: Sequence[PeftConfig], split: Encoded) -> None:
        settings = [TrainSettings(**dict(config.train)) for config in configs]
        self.split = split
        self.members = [draw(on.model, c, modules_to_save=on.modules_to_save) for c in configs]
        self.passes = Passes(on, 0, HiddenStates(0), None)
        for member in self.members:
            self.passes.pack.join(member)
        self.descents = [
            Descent(m.groups, split, on.criterion, s, Order((10_000.0,), seed))
            for seed, (m, s) in enumerate(zip(self.members, settings, strict=True))
        ]
        on.model.train()

    def step(self) -> None:
        """One step of every member."""
        rows = [descent.rows for descent in self.descents]
        sizes = [len(places) for places in rows]
        outputs, targets = self.passes.outputs(self.split, torch.cat(rows), sizes)
        parts = torch.split(outputs, sizes), torch.split(targets, sizes)
        losses = [d.loss(*part) for d, *part in zip(self.descents, *parts, strict=True)]
        torch.autograd.backward(torch.stack(losses).sum())
        for descent, loss in zip(self.descents, losses, strict=True):
            descent.learn(loss, 0.0)

    def held(self) -> list[Tensor]:
        """What is there before and after a step."""
        model = self.passes.backbone.model
        trained = [t for member in self.members for t in member.trainable().values()]
        return [*model.parameters(), *model.buffers(), *trained]

    def close(self) -> None:
        self.passes.pack.close()


@contextmanager
def training(on: Backbone, configs: Sequence[PeftConfig], split: Encoded) -> Iterator[Training]:
    """The configurations on the backbone while the block runs."""
    started = Training(on, configs, split)
    try:
        yield started
    finally:
        started.close()


def made_up(on: Backbone, texts: Texts) -> Encoded:
    """Random tokens of eight batches."""
    random = torch.Generator().manual_seed(0)
    lengths = torch.full((8 * texts.batch_size,), texts.tokens)
    lengths[::2] -= 1
    vocabulary = on.model.config.vocab_size
    ids = [torch.randint(2, vocabulary, (n,), generator=random) for n in lengths.tolist()]
    columns = {"input_ids": ids, "attention_mask": [torch.ones_like(row) for row in ids]}
    labels = torch.randint(0, 2, (len(ids),), generator=random)
    return Encoded("train", columns, dict.fromkeys(columns, 0), lengths, labels)


def configs_of(kind: str, shape: Shape, count: int, texts: Texts) -> list[PeftConfig]:
    """Configurations that tune the first layer, so that they share every pass.

    Args:
        kind: `lora` or `adapter` on every layer, or a `mix` drawn from `layer-mix`.
        shape: of the backbone.
        count: how many; their learning rates differ.
        texts: of each.
    """
    rng = np.random.default_rng(0)
    configs: list[PeftConfig] = []
    space = SearchSpace.load("layer-mix").on(shape, trained_elements)
    while len(configs) < count:
        drawn = space.draw(rng).config
        placements = drawn.placements if kind == "mix" else [_everywhere(kind, shape)]
        config = PeftConfig.of(placements, {**dict(drawn.train), "batch_size": texts.batch_size})
        if lowest_layer(config, shape) == 0:
            configs.append(config)
    return configs


def _everywhere(method: str, shape: Shape) -> Placement:
    return Placement.of(method, range(len(shape.layers)), OPTIONS[method])


def seconds_per_step(
    on: Backbone, configs: Sequence[PeftConfig], texts: Texts, n_steps: int
) -> float:
    """The mean over so many steps, after some that warm up."""
    with training(on, configs, made_up(on, texts)) as started:
        for _ in range(WARM_STEPS):
            started.step()
        _wait(on)
        start = time.perf_counter()
        for _ in range(n_steps):
            started.step()
        _wait(on)
        return (time.perf_counter() - start) / n_steps


def _wait(on: Backbone) -> None:
    """Until the device has done what it was told."""
    if on.device.type == "cuda":
        torch.cuda.synchronize(on.device)


def peak_memory(on: Backbone, configs: Sequence[PeftConfig], texts: Texts) -> int:
    """Most bytes allocated at once in some steps, the backbone included."""

    def steps() -> None:
        for _ in range(MEMORY_STEPS):
            started.step()

    with training(on, configs, made_up(on, texts)) as started:
        if on.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(on.device)
            steps()
            return torch.cuda.max_memory_allocated(on.device)
        return measured_peak(steps, started.held())
