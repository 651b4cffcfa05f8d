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


@pytest.fixture(scope="module")
def pair(request: pytest.FixtureRequest) -> tuple[Backbone, Backbone]:
    """MiniLM without weights, and with its own."""
    settings = BackboneSettings(dtype=request.param)
    real = load_backbone(MINILM, "text-classification", settings, n_labels=2, device="cpu")
    return meta_backbone(MINILM, settings), real


def predicted(meta: Backbone, configs: Sequence[PeftConfig]) -> Memory:
    return predict_pack(meta, configs, batch_sizes=[ROWS] * len(configs), **SIZE)


def measured(real: Backbone, configs: Sequence[PeftConfig]) -> int:
    return measure_memory(real, configs, batch_size=ROWS, sequence_length=TOKENS)


ABOVE = [("float32", name, lowest) for name in ("lora", "all", "head") for lowest in (1, 4)]


@pytest.mark.parametrize(
    ("pair", "name", "lowest"), [*ABOVE, ("bfloat16", "all", 4)], indirect=["pair"]
)
def test_equals_the_allocator_above_the_lower_layers(
    pair: tuple[Backbone, Backbone], name: str, lowest: int
) -> None:
    meta, real = pair
    config = mix(name, range(lowest, 6))
    assert starting_depth(meta.model, meta.shape, [config]) == (6 if name == "head" else lowest)
    assert predicted(meta, [config]).peak == pytest.approx(measured(real, [config]), rel=2e-3)


PACKS = (
    ("float32", ("lora", "lora"), 0),
    ("float32", ("lora", "sequential", "parallel", "bitfit"), 4),
    ("float32", ("all", "prefix"), 4),
    ("float32", ("head", "head", "head"), 0),
    ("bfloat16", ("all", "prefix"), 4),
)


@pytest.mark.parametrize(("pair", "names", "lowest"), PACKS, indirect=["pair"])
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


@pytest.mark.parametrize("pair", ["float32"], indirect=True)
def test_refuses_packs_of_different_backbones(pair: tuple[Backbone, Backbone]) -> None:
    configs = [mix("lora"), mix("lora", gradient_checkpointing=True)]
    with pytest.raises(StudyError, match="different forms"):
        predicted(pair[0], configs)
    with pytest.raises(AttachError):
        predicted(pair[0], [mix("lora"), mix("lora", range(9))])
