from __future__ import annotations

import numpy as np
import pytest

from autopeft.core.config import PeftConfig, Placement
from autopeft.search.effects import N_LEAST, Effect, effects

LAYERS = 6


def drawn(rng: np.random.Generator) -> PeftConfig:
    """LoRA and an adapter, each in either half or not, with sizes, and a batch size."""
    placements = []
    for method, option in (("lora", "r"), ("adapter", "size")):
        size = int(rng.choice([2, 4, 16]))
        halves = [layers for layers in (range(3), range(3, 6)) if rng.random() < 0.5]
        layers = [layer for half in halves for layer in half]
        if layers:
            placements.append(Placement.of(method, layers, {option: size}))
    return PeftConfig.of(placements, {"batch_size": int(rng.choice([8, 32]))})


def helps(config: PeftConfig) -> float:
    """The adapter in the upper half takes 0.05 off the loss, small batches 0.02; nothing else."""
    upper = any(p.method == "adapter" and 5 in p.layers for p in config.placements)
    return -0.05 * upper + 0.02 * (dict(config.train)["batch_size"] == 32)


def found(seed: int, n: int = 60, noise: float = 0.02) -> dict[str, Effect]:
    rng = np.random.default_rng(seed)
    configs = [drawn(rng) for _ in range(n)]
    losses = np.array([helps(c) for c in configs]) + rng.normal(0, noise, n)
    return {effect.what: effect for effect in effects(configs, losses)}


def test_what_helps_is_told_apart_from_what_does_not() -> None:
    told = found(0)
    assert set(told) == {
        *(f"{m} in the {half} half" for m in ("lora", "adapter") for half in ("lower", "upper")),
        "lora r 16 rather than 4",
        "adapter size 16 rather than 4",
        "batch_size 32 rather than 8",
    }
    assert [e.what for e in told.values() if e.is_size] == [
        what for what in told if "rather than 4" in what
    ]
    first = next(iter(told.values()))
    assert first.what == "adapter in the upper half"
    assert first.loss == pytest.approx(-0.05, abs=0.02)
    assert told["batch_size 32 rather than 8"].loss == pytest.approx(0.02, abs=0.012)
    assert abs(told["lora in the upper half"].loss) < 3 * told["lora in the upper half"].deviation


def test_intervals_hold_what_is_true() -> None:
    """Nearly as often as they say: shrinkage costs a little."""
    truth = {"adapter in the upper half": -0.05, "batch_size 32 rather than 8": 0.02}
    inside = []
    for seed in range(60):
        for what, effect in found(seed).items():
            inside.append(abs(effect.loss - truth.get(what, 0.0)) < 1.96 * effect.deviation)
    assert np.mean(inside) > 0.88


def test_more_trials_make_it_surer() -> None:
    few, many = (found(1, n)["adapter in the upper half"].deviation for n in (24, 240))
    assert many < 0.6 * few


def test_little_tells_nothing() -> None:
    rng = np.random.default_rng(0)
    configs = [drawn(rng) for _ in range(N_LEAST)]
    assert effects(configs[:-1], np.arange(N_LEAST - 1.0)) == []
    assert effects(configs, np.ones(N_LEAST)) == []
    assert effects([PeftConfig()] * 20, np.arange(20.0)) == []


def test_a_training_that_collapsed_spoils_no_effect() -> None:
    rng = np.random.default_rng(0)
    configs = [drawn(rng) for _ in range(60)]
    losses = np.array([helps(config) for config in configs]) + rng.normal(0, 0.01, 60)
    losses[7] = 50.0
    (first, *_) = effects(configs, losses)
    assert first.what == "adapter in the upper half"
    assert first.loss == pytest.approx(-0.05, abs=0.02)
