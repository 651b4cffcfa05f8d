from __future__ import annotations

import pytest

from autopeft.core.config import PeftConfig
from autopeft.core.settings import BackboneSettings
from autopeft.memory.flops import count_flops
from autopeft.memory.predict import predict_memory
from autopeft.memory.quantities import Setting, known_quantities
from autopeft.model.backbone import meta_backbone
from autopeft.objective.quantity import KNOWN
from autopeft.space import SearchSpace, choice
from tests.minilm import MINILM, lora


@pytest.fixture(scope="module")
def setting() -> Setting:
    return Setting(meta_backbone(MINILM, BackboneSettings(dtype="float32")), 32, "cpu")


def value(setting: Setting, name: str, config: PeftConfig) -> float:
    return known_quantities(setting)[name].value(config)


def test_every_known_objective_is_computed(setting: Setting) -> None:
    assert set(known_quantities(setting)) == set(KNOWN)


def test_memory_is_that_of_the_micro_batch(setting: Setting) -> None:
    whole, parted = lora(), lora(batch_size=4, gradient_accumulation_steps=4)
    size = {"sequence_length": 32, "device": "cpu"}
    for config, rows in ((whole, 16), (parted, 4)):
        peak = predict_memory(setting.backbone, config, batch_size=rows, **size).peak
        assert value(setting, "peak_memory", config) == peak
    more = lora(batch_size=4, gradient_accumulation_steps=9)
    assert value(setting, "peak_memory", more) == value(setting, "peak_memory", parted)


def test_flops_leave_out_what_is_done_once(setting: Setting) -> None:
    upper, whole = lora(range(4, 6)), lora()
    counted = count_flops(setting.backbone, upper, 1, 32)
    assert value(setting, "training_flops", upper) == counted.training_step - counted.lower
    assert 2 * value(setting, "training_flops", upper) < value(setting, "training_flops", whole)
    batches = lora(batch_size=2, learning_rate=1e-4)
    assert value(setting, "training_flops", batches) == value(setting, "training_flops", whole)


def test_a_gpu_sees_batches_padded_to_eight_tokens(setting: Setting) -> None:
    odd, even = (Setting(setting.backbone, length, "cuda") for length in (29, 32))
    assert value(odd, "peak_memory", lora()) == value(even, "peak_memory", lora())
    assert value(Setting(setting.backbone, 29, "cpu"), "peak_memory", lora()) < value(
        setting, "peak_memory", lora()
    )


def test_learning_rates_change_nothing_that_is_known(setting: Setting) -> None:
    space = SearchSpace(place=[{"method": "lora", "r": 4, "learning_rate": choice(1e-3, 2e-3)}])
    bound = space.on(setting.backbone.shape)
    slow, fast = (bound.resolve({"0.lora.learning_rate@all": rate}) for rate in (1e-3, 2e-3))
    assert slow.key != fast.key
    assert slow.built == fast.built
    assert (
        slow.built.placements[0].options
        == SearchSpace(place=[{"method": "lora", "r": 4}])
        .on(setting.backbone.shape)
        .resolve({})
        .placements[0]
        .options
    )
