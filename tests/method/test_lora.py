from __future__ import annotations

import copy
from typing import Any

import peft
import pytest
import torch

from autopeft.core.config import PeftConfig, Placement
from autopeft.method.attach import Attached, attach
from autopeft.method.sites import layers_of
from tests.backbones import inputs, logits, tiny
from tests.contracts.method import stir

NAMES = {
    "bert": ["query", "key", "value", "dense"],
    "llama": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
}


def lora(layers: int, **changes: Any) -> PeftConfig:
    options = {"targets": ("q", "v"), "r": 4, "lora_alpha": 12.0, "lora_dropout": 0.0, **changes}
    return PeftConfig.of([Placement.of("lora", range(layers), options)])


def pair(architecture: str) -> tuple[Attached, peft.PeftModel]:
    """Ours and HF peft's LoRA on every linear of equal backbones, with equal tensors."""
    model = tiny(architecture)
    reference = peft.LoraConfig(
        r=4, lora_alpha=12, target_modules=NAMES[architecture], exclude_modules=[".*pooler.*"]
    )
    if architecture == "bert":
        reference.exclude_modules = r".*pooler\.dense"
    theirs = peft.get_peft_model(copy.deepcopy(model), reference).eval()
    targets = ("q", "k", "v", "o", "gate", "up", "down")
    if architecture == "bert":
        targets = ("q", "k", "v", "o", "up", "down")
    on = attach(model, lora(2, targets=targets))
    stir(on)
    with torch.no_grad():
        for name, weight in on.trainable().items():
            _theirs(theirs, on, name).copy_(weight)
    return on, theirs


def _theirs(model: peft.PeftModel, on: Attached, name: str) -> torch.nn.Parameter:
    _, layer, _, *role, letter = name.split(".")
    path = layers_of(on.model)[int(layer)].linears[".".join(role)].path
    return model.base_model.model.get_parameter(f"{path}.lora_{letter}.default.weight")


@pytest.mark.parametrize("architecture", ["bert", "llama"])
def test_output_gradients_and_merged_weights_are_those_of_peft(architecture: str) -> None:
    on, theirs = pair(architecture)
    batch = inputs(architecture)
    ours, expected = logits(on.model, batch), logits(theirs, batch)
    assert torch.allclose(ours, expected, atol=1e-5, rtol=1e-5)
    ours.square().mean().backward()
    expected.square().mean().backward()
    for name, weight in on.trainable().items():
        gradient = _theirs(theirs, on, name).grad
        assert torch.allclose(weight.grad, gradient, atol=1e-5 * float(gradient.abs().max()))
    on.merge()
    merged = theirs.merge_and_unload().state_dict()
    for name, tensor in on.model.state_dict().items():
        assert torch.allclose(tensor, merged[name], atol=1e-5), name


def test_initial_tensors_have_the_distribution_of_peft() -> None:
    on = attach(tiny("bert"), lora(2, r=64))
    a = on.trainable()["layers.0.lora.self.q.A"].detach()
    bound = 32**-0.5
    assert a.abs().max() <= bound
    assert a.abs().max() > 0.99 * bound
    assert abs(float(a.std()) - bound / 3**0.5) < 0.01
    assert not on.trainable()["layers.0.lora.self.q.B"].any()


def test_alpha_left_out_is_twice_the_rank() -> None:
    outputs = []
    for alpha in (None, 8):
        model = tiny("bert")
        stir(attach(model, lora(2, lora_alpha=alpha)))
        outputs.append(logits(model, inputs("bert")))
    assert torch.equal(*outputs)


def test_a_fused_projection_changes_in_its_own_columns_only() -> None:
    model = tiny("gpt2")
    before = model.transformer.h[0].attn.c_attn.weight.detach().clone()
    on = attach(model, lora(1, targets=("k",)))
    stir(on)
    a, b = (on.trainable()[f"layers.0.lora.self.k.{letter}"].detach() for letter in "AB")
    on.merge()
    change = model.transformer.h[0].attn.c_attn.weight.detach() - before
    assert torch.allclose(change[:, 32:64], 3 * (b @ a).T, atol=1e-6)
    assert not change[:, :32].any()
    assert not change[:, 64:].any()


def test_targets_name_one_attention_or_both() -> None:
    both = attach(tiny("bart"), lora(4, targets=("q",))).trainable()
    cross = attach(tiny("bart"), lora(4, targets=("cross.q",))).trainable()
    own = attach(tiny("bart"), lora(4, targets=("self.q",))).trainable()
    assert both.keys() == cross.keys() | own.keys()
    assert {name.split(".")[1] for name in cross} == {"2", "3"}
    named_twice = attach(tiny("bart"), lora(4, targets=("q", "self.q"))).trainable()
    assert named_twice.keys() == both.keys()


def test_dropout_acts_in_training_only() -> None:
    model, batch = tiny("bert"), inputs("bert")
    stir(attach(model, lora(2, lora_dropout=0.5)))
    assert torch.equal(logits(model, batch), logits(model, batch))
    model.train()
    assert not torch.equal(logits(model, batch), logits(model, batch))


def test_two_placements_on_one_linear_add_up() -> None:
    options = {"targets": ("q",), "r": 4, "lora_alpha": 4, "lora_dropout": 0.0}
    model = tiny("bert")
    placements = [Placement.of("lora", [0], options), Placement.of("lora", [0], options)]
    on = attach(model, PeftConfig.of(placements))
    assert list(on.trainable()) == [
        "layers.0.lora.self.q.A",
        "layers.0.lora.self.q.B",
        "layers.0.lora.self.q.2.A",
        "layers.0.lora.self.q.2.B",
    ]
    stir(on)
    before, unmerged = layers_of(model)[0].module("self.q"), logits(model, inputs("bert"))
    original = before.weight.detach().clone()
    first, second = (
        on.trainable()[f"layers.0.lora.self.q.{n}B"] @ on.trainable()[f"layers.0.lora.self.q.{n}A"]
        for n in ("", "2.")
    )
    on.merge()
    assert torch.allclose(before.weight, original + first + second, atol=1e-6)
    assert torch.allclose(logits(model, inputs("bert")), unmerged, atol=1e-5)
