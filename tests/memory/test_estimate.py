"""Estimated peaks of memory against the traced ones."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from autopeft.api.configurations import on_backbone
from autopeft.core.config import PeftConfig, Placement
from autopeft.core.settings import BackboneSettings
from autopeft.memory.estimate import MemoryEstimate, estimates
from autopeft.memory.quantities import Setting
from autopeft.model.backbone import meta_backbone
from tests.minilm import MINILM, lora

BACKBONE = meta_backbone(MINILM, BackboneSettings(dtype="float32"), head="text-classification")
N_LAYERS = 6


def peaks(device: str) -> Callable[[PeftConfig], float]:
    predicted = Setting(BACKBONE, 32, device).memory
    return lambda config: float(predicted(config).peak)


@pytest.mark.parametrize("layers", [[5], [4], [3, 5], [2, 4], [0], [0, 5], range(N_LAYERS), []])
def test_one_method_on_any_layers_is_exact(layers: list[int]) -> None:
    exact, config = peaks("cpu"), lora(layers) if layers else PeftConfig()
    estimated = MemoryEstimate(exact, N_LAYERS)(config)
    assert estimated == pytest.approx(exact(config), rel=1e-4 if layers else 0)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_mixes_are_nearly_exact(device: str) -> None:
    space, rng, exact = on_backbone("layer-mix", BACKBONE), np.random.default_rng(0), peaks(device)
    estimate = MemoryEstimate(exact, N_LAYERS)
    errors = []
    for _ in range(8):
        config = space.draw(rng).config
        errors.append(abs(estimate(config) / exact(config) - 1))
    assert np.mean(errors) < 0.01
    assert max(errors) < 0.03


def test_an_estimate_does_not_depend_on_what_was_asked_before() -> None:
    space, rng, exact = on_backbone("layer-mix", BACKBONE), np.random.default_rng(1), peaks("cpu")
    configs = [space.draw(rng).config for _ in range(6)]
    bitfit = PeftConfig.of(
        [Placement.of("bitfit", range(N_LAYERS), {})], train=dict(configs[0].train)
    )
    there, back = MemoryEstimate(exact, N_LAYERS), MemoryEstimate(exact, N_LAYERS)
    forth = [there(config) for config in (*configs, bitfit)]
    assert [back(config) for config in (bitfit, *configs[::-1])][::-1] == forth


def test_sizes_in_between_need_no_traces_of_their_own() -> None:
    traced: list[PeftConfig] = []
    exact = peaks("cpu")

    def counted(config: PeftConfig) -> float:
        traced.append(config)
        return exact(config)

    estimate = MemoryEstimate(counted, N_LAYERS)
    options = dict(lora().placements[0].options)

    def ranked(r: int) -> PeftConfig:
        return PeftConfig.of([Placement.of("lora", range(N_LAYERS), {**options, "r": r})])

    estimate(ranked(8)), estimate(ranked(16))
    before = len(traced)
    for r in range(9, 16):
        assert estimate(ranked(r)) == pytest.approx(exact(ranked(r)), rel=1e-4)
    assert len(traced) == before


def test_a_backbone_of_two_stacks_or_few_layers_has_no_estimate() -> None:
    shape = BACKBONE.shape
    assert estimates(shape)
    assert not estimates(type(shape)(shape.layers[:3], shape.parameters))
    decoder = type(shape.layers[0])("decoder", *list(vars(shape.layers[0]).values())[1:])
    assert not estimates(type(shape)((*shape.layers[:5], decoder), shape.parameters))
