"""Single training steps in float32, side by side on the same texts and the same machine.

Two steps that are compared take turns, so that both meet the same disturbances. A step is forward,
backward, clipping and AdamW, ours as the trainer takes it but from the first layer on; of the
frozen model, which computes as little as the trainer's does, it is forward and backward alone.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping
from contextlib import closing
from dataclasses import replace
from statistics import median
from typing import TYPE_CHECKING

from benchmarks.hf_training import Row
from benchmarks.trial_variants import (
    BATCH_SIZE,
    LEARNING_RATE,
    MINILM,
    Size,
    our_config,
    peft_model,
)

if TYPE_CHECKING:
    from torch import Tensor, nn

    from autopeft.core.config import PeftConfig
    from autopeft.model.backbone import Backbone

Texts = Mapping[str, "Tensor"]
Seconds = Generator[float, None, None]

WARM_STEPS = 1


def lora_step(size: Size, seed: int) -> list[Row]:
    """LoRA r 8 on q and v, ours and peft's: median seconds of a step."""
    texts = made_up(size, seed)
    both = our_steps(backbone(), our_config(), texts), steps_of(peft_model(seed=0), texts)
    ours, peft = by_turns(*both, size.steps)
    return [{"ours": ours, "peft": peft}]


def mix_step(size: Size, seed: int) -> list[Row]:
    """Configurations of `layer-mix`, and the frozen model's forward and backward to its depth."""
    import numpy as np

    from autopeft.method.count import trained_elements
    from autopeft.space import SearchSpace

    texts, ours, frozen = made_up(size, seed), backbone(), backbone()
    space = SearchSpace.load("layer-mix").on(ours.shape, trained_elements)
    rng = np.random.default_rng(seed)
    rows: list[Row] = []
    while len(rows) < size.mixes:
        config = of_whole_batch(space.draw(rng).config)
        if not config.layers:
            continue
        depth = min(config.layers)
        both = our_steps(ours, config, texts), frozen_steps(frozen, depth, texts)
        mine, least = by_turns(*both, max(1, size.steps // 2))
        rows.append({"ours": mine, "frozen": least, "ratio": mine / least, "lowest_layer": depth})
    return rows


def of_whole_batch(config: PeftConfig) -> PeftConfig:
    """The configuration, trained on all texts of `made_up` at once."""
    train = {**dict(config.train), "batch_size": BATCH_SIZE}
    return replace(config, train=tuple(sorted(train.items())))


def made_up(size: Size, seed: int) -> Texts:
    """One batch: ids and mask (texts, tokens), labels (texts,)."""
    import torch

    torch.set_num_threads(1)
    random = torch.Generator().manual_seed(seed)
    tokens = torch.randint(1000, 30_000, (BATCH_SIZE, size.step_tokens), generator=random)
    labels = torch.randint(0, 2, (BATCH_SIZE,), generator=random)
    return {"input_ids": tokens, "attention_mask": torch.ones_like(tokens), "labels": labels}


def by_turns(ours: Seconds, theirs: Seconds, n_steps: int) -> tuple[float, float]:
    """The median seconds of either after a first step that warms up; both end with it."""
    with closing(ours), closing(theirs):
        turns = [(next(ours), next(theirs)) for _ in range(WARM_STEPS + n_steps)][WARM_STEPS:]
    return median(a for a, _ in turns), median(b for _, b in turns)


def backbone() -> Backbone:
    """As the trainer has it."""
    from autopeft.core.settings import BackboneSettings
    from autopeft.model.backbone import load_backbone
    from benchmarks.random_backbones import quickened

    settings = BackboneSettings(dtype="float32")
    loaded = load_backbone(MINILM, "text-classification", settings, n_labels=2, device="cpu")
    return quickened(loaded)


def our_steps(on: Backbone, config: PeftConfig, texts: Texts) -> Seconds:
    """The seconds of each step of a configuration; closing it takes the configuration off."""
    from autopeft.task.batches import Encoded
    from benchmarks.packed import training

    columns = {name: list(texts[name]) for name in ("input_ids", "attention_mask")}
    lengths = texts["attention_mask"].sum(1)
    split = Encoded("train", columns, dict.fromkeys(columns, 0), lengths, texts["labels"])
    with training(on, [config], split) as started:
        while True:
            start = time.perf_counter()
            started.step()
            yield time.perf_counter() - start


def steps_of(model: nn.Module, texts: Texts) -> Seconds:
    """The seconds of each step of a plain loop over a model."""
    import torch

    model.train()
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE, weight_decay=0.0, fused=True)
    while True:
        start = time.perf_counter()
        model(**texts).loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        yield time.perf_counter() - start


def frozen_steps(on: Backbone, depth: int, texts: Texts) -> Seconds:
    """Forward, and backward to what enters layer `depth`; no parameter has a gradient."""
    from autopeft.method.sites import layers_of

    def enter(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (inputs[0].detach().requires_grad_(), *inputs[1:])

    model = on.model.train().requires_grad_(False)
    layer = model.get_submodule(layers_of(model)[depth].path)
    handle = layer.register_forward_pre_hook(enter)
    try:
        while True:
            start = time.perf_counter()
            model(**texts).loss.backward()
            yield time.perf_counter() - start
    finally:
        handle.remove()
