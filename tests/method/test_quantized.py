from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers as tf

from autopeft.core.config import PeftConfig, Placement
from autopeft.core.errors import AttachError
from autopeft.method.attach import attach
from autopeft.method.registry import METHODS
from autopeft.method.sites import shape_of
from autopeft.model.backbone import _keep_4bit_layout
from tests.backbones import inputs, logits, tiny
from tests.contracts.method import assert_same, examples, fingerprint, stir

SETTINGS = {
    "nf4": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
    "int8": {"load_in_8bit": True},
}


@pytest.fixture(params=sorted(SETTINGS))
def quantized(request: pytest.FixtureRequest, tmp_path: Path) -> tf.PreTrainedModel:
    tiny("bert", hidden_size=64, intermediate_size=128).save_pretrained(tmp_path)
    skip = ["classifier", "pooler"]
    config = tf.BitsAndBytesConfig(**SETTINGS[request.param], llm_int8_skip_modules=skip)
    load = tf.AutoModelForSequenceClassification.from_pretrained
    return load(tmp_path, quantization_config=config, device_map="cpu", dtype=torch.float32)


def config(*methods: str) -> PeftConfig:
    return PeftConfig.of([Placement.of(name, [0, 1], METHODS[name].example) for name in methods])


def test_shape_is_the_logical_one(quantized: tf.PreTrainedModel) -> None:
    plain = tiny("bert", hidden_size=64, intermediate_size=128)
    assert shape_of(quantized) == shape_of(plain)


def test_every_method_trains(quantized: tf.PreTrainedModel) -> None:
    """All but those that need the weights themselves; of experts some are drawn in a step."""
    before = fingerprint(quantized)
    without = {"dora", "hira", "adamix", "peft"}
    on = attach(quantized, config(*(METHODS.keys() - without)), modules_to_save=("classifier",))
    stir(on)
    logits(quantized.train(), inputs("bert")).square().mean().backward()
    quantized.eval()
    for name, weight in on.trainable().items():
        assert weight.grad is not None, name
        assert weight.grad.abs().max() > 0, name
    on.detach()
    assert_same(before, fingerprint(quantized))


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("dora", {}),
        ("hira", {}),
        ("lora", {"init_lora_weights": "pissa"}),
        ("sparse", {"select": "smallest"}),
    ],
)
def test_what_reads_weights_is_refused(
    quantized: tf.PreTrainedModel, method: str, options: dict[str, str]
) -> None:
    placed = Placement.of(method, [0, 1], {**METHODS[method].example, **options})
    reason = f"^{method} on layers 0, 1: needs the weights themselves, which are quantized$"
    with pytest.raises(AttachError, match=reason):
        attach(quantized, PeftConfig.of([placed]))


@pytest.mark.parametrize(
    ("method", "options"),
    [("lora", {"init_lora_weights": "eva"}), ("sparse", {"select": "fisher"})],
)
def test_what_starts_from_examples_needs_no_weights(
    quantized: tf.PreTrainedModel, method: str, options: dict[str, str]
) -> None:
    _keep_4bit_layout(quantized)  # as `load_backbone` does
    before, data = fingerprint(quantized), examples(quantized)
    placed = Placement.of(method, [0, 1], {**METHODS[method].example, **options})
    on = attach(quantized, PeftConfig.of([placed]), examples=data)
    state = on.state_dict()
    names = [name for name in state if name.endswith((".A", ".index"))]
    assert all(len(state[name].unique()) > 1 for name in names)
    on.detach()
    assert_same(before, fingerprint(quantized))
    plain = tiny("bert", hidden_size=64, intermediate_size=128)
    exact = attach(plain, PeftConfig.of([placed]), examples=data).state_dict()
    for name in names:
        if method == "lora":
            assert (state[name][0] @ exact[name][0]).abs() > 0.95
        else:
            assert torch.isin(state[name], exact[name]).float().mean() > 0.5


def test_low_rank_branches_do_not_merge(quantized: tf.PreTrainedModel) -> None:
    on = attach(quantized, config("bitfit", "lora"))
    stir(on)
    assert [placement.method for placement in on.unmergeable()] == ["lora"]
    with pytest.raises(AttachError, match=r"lora on layers 0, 1: .*quantized"):
        on.merge()
