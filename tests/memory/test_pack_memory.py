"""Predicted memory of packs, and of training that starts above the lower layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from autopeft.core.config import PeftConfig
from autopeft.core.errors import AttachError, StudyError
from autopeft.core.settings import BackboneSettings
from autopeft.memory.predict import Memory, predict_pack, starting_depth
from autopeft.model.backbone import Backbone, load_backbone, meta_backbone
from tests.memory.allocator import measure_memory
from tests.memory.test_predict import mix
from tests.minilm import MINILM

ROWS, TOKENS = 4, 48
SIZE: dict[str, Any] = {"sequence_length": TOKENS, "device": "cpu"}


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def pair(request: pytest.FixtureRequest) -> tuple[Backbone, Backbone]:
    """MiniLM without weights, and with its own."""
    settings = BackboneSettings(dtype=request.param)
    real = load_backbone(MINILM, "text-classification", settings, n_labels=2, device="cpu")
    return meta_backbone(MINILM, settings), real


def predicted(meta: Backbone, configs: Sequence[PeftConfig]) -> Memory:
    return predict_pack(meta, configs, batch_sizes=[ROWS] * len(configs), **SIZE)


def measured(real: Backbone, configs: Sequence[PeftConfig]) -> int:
    return measure_memory(real, configs, batch_size=ROWS, sequence_length=TOKENS)


@pytest.mark.parametrize("name", ["lora", "all", "head"])
@pytest.mark.parametrize("lowest", [1, 4])
def test_equals_the_allocator_above_the_lower_layers(
    pair: tuple[Backbone, Backbone], name: str, lowest: int
) -> None:
    meta, real = pair
    config = mix(name, range(lowest, 6))
    assert starting_depth(meta.model, meta.shape, [config]) == (6 if name == "head" else lowest)
    assert predicted(meta, [config]).peak == pytest.approx(measured(real, [config]), rel=2e-3)


PACKS = (
    (("lora", "lora"), 0),
    (("lora", "sequential", "parallel", "bitfit"), 4),
    (("all", "prefix"), 4),
    (("head", "head", "head"), 0),
)


@pytest.mark.parametrize(("names", "lowest"), PACKS)
def test_equals_the_allocator_in_packs(
    pair: tuple[Backbone, Backbone], names: Sequence[str], lowest: int
) -> None:
    """Beyond the sum of what members take alone, methods that differ lay out zeros once a site."""
    meta, real = pair
    configs = [mix(name, range(lowest, 6)) for name in names]
    pack, truth = predicted(meta, configs), measured(real, configs)
    assert pack.peak == pytest.approx(truth, rel=5e-3)
    alone = [predicted(meta, [config]) for config in configs]
    assert pack.parts["backbone"] == alone[0].parts["backbone"]
    bound = pack.parts["backbone"] + sum(member.own for member in alone)
    assert truth <= (1.01 if len(set(names)) == 1 else 1.08) * bound


def test_refuses_packs_of_different_backbones(pair: tuple[Backbone, Backbone]) -> None:
    configs = [mix("lora"), mix("lora", gradient_checkpointing=True)]
    with pytest.raises(StudyError, match="different forms"):
        predicted(pair[0], configs)
    with pytest.raises(AttachError):
        predicted(pair[0], [mix("lora"), mix("lora", range(9))])
