from __future__ import annotations

import pytest

from autopeft.core.config import PeftConfig
from autopeft.core.settings import BackboneSettings
from autopeft.memory.flops import count_flops
from autopeft.model.backbone import Backbone, meta_backbone
from tests.memory.test_predict import mix
from tests.minilm import MINILM

ROWS, TOKENS, WIDTH, WIDER, LAYERS = 4, 32, 384, 1536, 6

LINEARS = 2 * ROWS * TOKENS * (4 * WIDTH * WIDTH + 2 * WIDTH * WIDER)
ATTENTION = 2 * 2 * ROWS * TOKENS * TOKENS * WIDTH
LAYER = LINEARS + ATTENTION
HEAD = 2 * ROWS * (WIDTH * WIDTH + 2 * WIDTH)
"""Pooler and classifier, which see one position."""
UNREAD = 2 * ROWS * (TOKENS - 1) * 2 * WIDTH * WIDER
"""The last feed-forward network at all positions but the first."""


@pytest.fixture(scope="module")
def minilm() -> Backbone:
    return meta_backbone(MINILM, BackboneSettings(dtype="float32"))


def counted(backbone: Backbone, config: PeftConfig) -> tuple[int, int, int]:
    flops = count_flops(backbone, config, ROWS, TOKENS)
    return flops.lower, flops.forward, flops.training_step


def test_the_forward_pass_is_that_of_its_matrices(minilm: Backbone) -> None:
    lower, forward, step = counted(minilm, mix("head"))
    assert lower == LAYERS * LAYER - UNREAD
    assert forward == lower + HEAD
    assert step == forward + 2 * HEAD - 2 * ROWS * WIDTH * WIDTH  # nothing flows below the pooler


@pytest.mark.parametrize("lowest", [0, 2, 5])
def test_layers_below_the_lowest_tuned_one_count_apart(minilm: Backbone, lowest: int) -> None:
    lower, forward, step = counted(minilm, mix("bitfit", range(lowest, LAYERS)))
    assert lower == lowest * LAYER
    assert forward == LAYERS * LAYER - UNREAD + HEAD
    above = forward - lower
    # frozen weights have no gradients, nor has what enters the lowest tuned layer
    assert above - LAYER < step - forward < 1.4 * above


def test_batches_and_methods_add_up(minilm: Backbone) -> None:
    once = count_flops(minilm, mix("lora"), 1, TOKENS)
    twice = count_flops(minilm, mix("lora"), 2, TOKENS)
    assert twice.training_step == 2 * once.training_step
    rank = 2 * ROWS * TOKENS * 2 * 8 * (WIDTH + WIDTH) * LAYERS
    assert 4 * once.forward == counted(minilm, mix("bitfit"))[1] + rank


def test_quantization_and_checkpointing_count_nothing(minilm: Backbone) -> None:
    form = {"quantization": "nf4", "gradient_checkpointing": True}
    assert counted(minilm, mix("lora", **form)) == counted(minilm, mix("lora"))
