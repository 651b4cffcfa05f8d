from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import torch
import transformers as tf

from autopeft.core.config import PeftConfig, Placement
from autopeft.core.errors import AttachError
from autopeft.method.attach import HOLDER, Attached, attach
from autopeft.method.registry import METHODS
from autopeft.method.sites import shape_of
from tests.backbones import inputs, logits, tiny
from tests.contracts.method import assert_same, attached, fingerprint, step, stir

HEADS = {"bert": ("classifier",), "roberta": ("classifier",), "vit": ("classifier",)}


def mix(model: Any, **options: Any) -> Attached:
    """Every method on every layer at once."""
    layers = range(len(shape_of(model).layers))
    placements = [Placement.of(name, layers, METHODS[name].example) for name in METHODS]
    return attach(model, PeftConfig.of(placements), **options)


@pytest.mark.parametrize(
    ("architecture", "reentrant"),
    [("bert", False), ("gpt2", False), ("bart", False), ("vit", False), ("bert", True)],
)
def test_gradient_checkpointing_changes_nothing(architecture: str, reentrant: bool) -> None:
    gradients = []
    for checkpointing in (False, True):
        model = tiny(architecture).train()
        on = mix(model)
        stir(on)
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": reentrant})
        torch.manual_seed(0)
        logits(model, inputs(architecture)).square().mean().backward()
        gradients.append([weight.grad for weight in on.trainable().values()])
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*gradients, strict=True))


@pytest.mark.parametrize("architecture", sorted(HEADS))
def test_heads_are_trained_and_come_back(architecture: str) -> None:
    model = tiny(architecture)
    before = fingerprint(model)
    on = mix(model, modules_to_save=HEADS[architecture])
    heads = {name: w.detach().clone() for name, w in on.trainable().items() if "head." in name}
    expected = dict(model.classifier.named_parameters(prefix="head.classifier"))
    assert heads.keys() == expected.keys()
    step(on, architecture)
    assert all(not torch.equal(old, on.trainable()[name]) for name, old in heads.items())
    on.detach()
    assert_same(before, fingerprint(model))


def test_flags_and_attention_come_back_as_they_were() -> None:
    model = tiny("bert", attn_implementation="eager")
    for index, parameter in enumerate(model.parameters()):
        parameter.requires_grad_(index % 3 == 0)
    before = fingerprint(model)
    on = mix(model, modules_to_save=("classifier",))
    assert not any(
        p.requires_grad
        for n, p in model.named_parameters()
        if not n.startswith(("classifier", f"{HOLDER}."))
    )
    on.detach()
    on.detach()
    assert_same(before, fingerprint(model))


@pytest.mark.parametrize("module", ["bert.encoder.layer.1.output.dense", "bert.pooler.dense"])
def test_an_exception_in_the_forward_leaves_nothing_behind(module: str) -> None:
    model, batch = tiny("bert"), inputs("bert")
    before, plain = fingerprint(model), logits(model, batch)
    on = mix(model)

    def fail(*_: Any) -> None:
        raise ArithmeticError

    handle = model.get_submodule(module).register_forward_pre_hook(fail, prepend=True)
    seen: list[weakref.ref[Any]] = []
    watch = model.bert.encoder.layer[1].intermediate.dense.register_forward_pre_hook(
        lambda _, x: seen.append(weakref.ref(x[0]))
    )
    with pytest.raises(ArithmeticError):
        logits(model, batch)
    handle.remove()
    watch.remove()
    on.detach()
    gc.collect()
    assert seen
    assert seen[0]() is None
    assert_same(before, fingerprint(model))
    assert torch.equal(plain, logits(model, batch))


def test_a_forward_after_an_exception_is_right() -> None:
    model, batch = tiny("bert"), inputs("bert")
    on = mix(model)
    stir(on)
    expected = logits(model, batch)
    other = {name: tensor.flip(0) for name, tensor in batch.items()}
    handle = model.bert.pooler.register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        logits(model, other)
    handle.remove()
    assert torch.equal(expected, logits(model, batch))


def test_a_failed_attach_changes_nothing() -> None:
    model = tiny("bert")
    before = fingerprint(model)
    good = Placement.of("prefix", [0], {"length": 2})
    bad = Placement.of("lora", [7], METHODS["lora"].example)
    for config, heads in ((PeftConfig.of([good, bad]), ()), (PeftConfig.of([good]), ("clas",))):
        with pytest.raises(AttachError):
            attach(model, config, modules_to_save=heads)
    assert_same(before, fingerprint(model))


def test_one_configuration_at_a_time() -> None:
    model = tiny("bert")
    on = attached("lora", model)
    with pytest.raises(AttachError, match="carries a configuration; detach it first"):
        attached("bitfit", model)
    on.detach()
    attached("bitfit", model).detach()


def test_modules_to_save_must_exist() -> None:
    with pytest.raises(AttachError, match=r"modules_to_save: .* has no module 'score'"):
        attached("lora", tiny("bert"), modules_to_save=("score",))
    with pytest.raises(AttachError, match="'dropout' has no parameters"):
        attached("lora", tiny("bert"), modules_to_save=("dropout",))


def test_draws_depend_on_seed_and_name_alone() -> None:
    torch.manual_seed(0)
    state = torch.get_rng_state()
    whole = mix(tiny("bert"), seed=3).state_dict()
    assert torch.equal(state, torch.get_rng_state())
    alone = attached("lora", tiny("bert"), seed=3).state_dict()
    assert all(torch.equal(tensor, whole[name]) for name, tensor in alone.items())
    other = attached("lora", tiny("bert"), seed=4).state_dict()
    a = "layers.0.lora.self.q.A"
    assert not torch.equal(alone[a], other[a])
    assert not torch.equal(alone[a], alone["layers.1.lora.self.q.A"])


def test_state_must_fit() -> None:
    on = attached("lora", tiny("bert"))
    state = {name: tensor + 1 for name, tensor in on.state_dict().items()}
    a, b = "layers.0.lora.self.q.A", "layers.0.lora.self.q.B"
    broken = {name: tensor for name, tensor in state.items() if name != a}
    broken |= {b: torch.zeros(2, 2), "layers.9.lora.self.q.A": torch.zeros(1)}
    before = {name: tensor.clone() for name, tensor in on.state_dict().items()}
    with pytest.raises(AttachError) as caught:
        on.load_state_dict(broken)
    assert str(caught.value) == (
        f"state: missing {a}; unexpected layers.9.lora.self.q.A; "
        f"{b} must have shape (32, 3), got (2, 2)"
    )
    assert all(torch.equal(tensor, before[name]) for name, tensor in on.state_dict().items())
    on.load_state_dict(state)
    assert all(torch.equal(tensor, state[name]) for name, tensor in on.state_dict().items())


def test_merge_keeps_trained_heads_and_leaves_a_plain_model(tmp_path) -> None:
    model, batch = tiny("bert"), inputs("bert")
    layers = range(2)
    placements = [Placement.of(n, layers, METHODS[n].example) for n in ("bitfit", "lora")]
    on = attach(model, PeftConfig.of(placements), modules_to_save=("classifier",))
    stir(on)
    trained = logits(model, batch)
    assert on.unmergeable() == ()
    on.merge()
    assert torch.allclose(logits(model, batch), trained, atol=1e-5)
    model.save_pretrained(tmp_path)
    again = tf.AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert torch.equal(logits(again.eval(), batch), logits(model, batch))
    merged = logits(model, batch)
    on.detach()
    assert torch.equal(logits(model, batch), merged)
    with pytest.raises(AttachError, match="no longer on the model"):
        on.merge()


def test_merge_names_every_placement_that_it_refuses() -> None:
    model = tiny("bert")
    on = mix(model)
    stir(on)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    refused = ["adamix", "adapter", "compacter", "ladder", "prefix", "prompt", "propetl"]
    refused += ["sparse-adapter", "tiny-attention"]
    assert [placement.method for placement in on.unmergeable()] == refused
    names = "; ".join(f"{name} on layers 0, 1" for name in refused)
    with pytest.raises(AttachError, match=f"^{names}: cannot"):
        on.merge()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_backbones_train_in_float32(dtype: torch.dtype) -> None:
    model, batch = tiny("bert").to(dtype), inputs("bert")
    before = fingerprint(model)
    on = mix(model, modules_to_save=("classifier",))
    stir(on)
    output = logits(model, batch)
    assert output.dtype == torch.float32
    output.square().mean().backward()
    assert {weight.dtype for weight in on.trainable().values()} == {torch.float32}
    assert all(weight.grad.isfinite().all() for weight in on.trainable().values())
    assert all(weight.grad.abs().max() > 0 for weight in on.trainable().values())
    on.detach()
    assert_same(before, fingerprint(model))


def test_half_precision_merge_rounds_once_and_keeps_the_dtype() -> None:
    model = tiny("bert").to(torch.bfloat16)
    weight = model.bert.encoder.layer[0].attention.self.query.weight
    before = weight.detach().clone()
    on = attached("lora", model, modules_to_save=("classifier",))
    stir(on)
    a, b = (on.trainable()[f"layers.0.lora.self.q.{letter}"].detach() for letter in "AB")
    on.merge()
    assert torch.equal(weight, (before.float() + 2 * (b @ a)).to(torch.bfloat16))
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert logits(model, inputs("bert")).isfinite().all()


@pytest.mark.parametrize("architecture", ["bert", "llama", "t5"])
def test_autocast_stays_close_to_float32(architecture: str) -> None:
    model, batch = tiny(architecture), inputs(architecture)
    method = ["adapter", "lora", "prefix"]
    layers = range(len(shape_of(model).layers))
    config = PeftConfig.of([Placement.of(n, layers, METHODS[n].example) for n in method])
    stir(attach(model, config))
    exact = logits(model, batch)
    with torch.autocast("cpu", torch.bfloat16):
        rough = logits(model, batch)
    assert (rough.float() - exact).norm() < 0.1 * exact.norm()


def test_lower_layers_need_no_backward() -> None:
    model = tiny("bert")
    config = PeftConfig.of([Placement.of("lora", [1], METHODS["lora"].example)])
    on = attach(model, config)
    states = model(**inputs("bert"), output_hidden_states=True).hidden_states
    assert [state.requires_grad for state in states] == [False, False, True]
    assert all("layers.1." in name for name in on.trainable())


def test_an_empty_configuration_trains_the_head_alone() -> None:
    model = tiny("bert")
    on = attach(model, PeftConfig(), modules_to_save=("classifier",))
    assert sorted(on.trainable()) == ["head.classifier.bias", "head.classifier.weight"]
    step(on, "bert")
    on.detach()


def test_meta_models_carry_every_method() -> None:
    with torch.device("meta"):
        model = tf.AutoModelForSequenceClassification.from_config(tiny("bert").config)
    on = mix(model, modules_to_save=("classifier",))
    ids = torch.zeros(2, 8, dtype=torch.long, device="meta")
    model(input_ids=ids).logits.square().mean().backward()
    assert all(w.is_meta and w.grad is not None for w in on.trainable().values())
