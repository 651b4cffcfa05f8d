"""Methods of HF peft: the same outputs, gradients and merged weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import peft
import pytest
import torch
import transformers as tf
from torch import Tensor

from autopeft.core.config import PeftConfig, Placement
from autopeft.method.attach import Attached, attach
from tests.backbones import inputs, logits, tiny

BERT = {"q": "attention.self.query", "k": "attention.self.key", "v": "attention.self.value"}
BERT |= {"o": "attention.output.dense", "up": "intermediate.dense", "down": "output.dense"}
LAYERS = range(2)
Fill = Callable[[Mapping[str, Tensor], Any], None]


def ours(method: str, layers: Iterable[int] = LAYERS, **options: Any) -> Attached:
    """A method on both layers, its tensors away from where they start."""
    on = attach(tiny("bert"), PeftConfig.of([Placement.of(method, layers, options)]))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in on.trainable().values():
            weight.add_(0.2 * torch.randn(weight.shape, generator=generator))
    return on


def site(layer: int, role: str) -> str:
    return f"bert.encoder.layer.{layer}.{BERT[role]}"


def sites(*roles: str) -> list[str]:
    """Names that mean these roles alone; `output.dense` would be those of the attention too."""
    return [site(layer, role) for layer in LAYERS for role in roles]


def low_rank(on: Attached, theirs: Any, roles: tuple[str, ...]) -> None:
    """Copies A and B, and the lengths of rows where there are some."""
    tensors = on.state_dict()
    for layer in LAYERS:
        for role in roles:
            name = f"layers.{layer}.{on.config.placements[0].method}.self.{role}"
            module = theirs.get_submodule(f"base_model.model.{site(layer, role)}")
            module.lora_A["default"].weight.data.copy_(tensors[f"{name}.A"])
            module.lora_B["default"].weight.data.copy_(tensors[f"{name}.B"])
            if f"{name}.m_change" in tensors:
                lengths = module.get_base_layer().weight.norm(dim=1)
                magnitude = module.lora_magnitude_vector["default"].weight
                magnitude.data.copy_(lengths * (1 + tensors[f"{name}.m_change"]))


def assert_equal(on: Attached, theirs: Any) -> None:
    """The same outputs, before and after merging."""
    batch = inputs("bert")
    expected = theirs.eval()(**batch).logits
    assert torch.allclose(logits(on.model, batch), expected, atol=1e-5)
    merged = theirs.merge_and_unload()
    on.merge()
    assert torch.allclose(logits(on.model, batch), logits(merged, batch), atol=1e-5)
    mine = dict(on.model.named_parameters())
    for name, weight in merged.named_parameters():
        assert torch.allclose(mine[name], weight, atol=1e-5), name


def gradients(on: Attached, theirs: Any) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Of both, by name, of the same loss."""
    batch = inputs("bert")
    for model in (on.model, theirs.eval()):
        model.zero_grad()
        model(**batch).logits.square().mean().backward()
    mine = {name: weight.grad for name, weight in on.trainable().items()}
    other = {n: p.grad for n, p in theirs.named_parameters() if p.grad is not None}
    return mine, other


@pytest.mark.parametrize(
    ("method", "mine", "config"),
    [
        ("lora", {"use_rslora": True}, {"use_rslora": True}),
        ("lora", {}, {}),
        ("dora", {}, {"use_dora": True}),
    ],
)
def test_low_rank(method: str, mine: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    roles, rank = ("q", "v"), {"r": 3, "lora_alpha": 6.0}
    on = ours(method, targets=roles, lora_dropout=0.0, **rank, **mine)
    theirs = peft.get_peft_model(
        tiny("bert"), peft.LoraConfig(target_modules=sites(*roles), **rank, **config)
    )
    low_rank(on, theirs, roles)
    here, there = gradients(on, theirs)
    for layer in LAYERS:
        for role in roles:
            for letter in "AB":
                own = here[f"layers.{layer}.{method}.self.{role}.{letter}"]
                key = f"base_model.model.{site(layer, role)}.lora_{letter}.default.weight"
                assert torch.allclose(own, there[key], atol=1e-5)
            if method == "dora":
                own = here[f"layers.{layer}.dora.self.{role}.m_change"]
                key = f"base_model.model.{site(layer, role)}.lora_magnitude_vector.default.weight"
                lengths = dict(on.model.named_parameters())[f"{site(layer, role)}.weight"]
                assert torch.allclose(own, there[key] * lengths.norm(dim=1), atol=1e-5)
    assert_equal(on, theirs)


def test_pissa_starts_where_peft_does() -> None:
    """The same function at the start and along a step of gradient descent."""
    roles, rank = ("q", "v"), {"r": 3, "lora_alpha": 6.0}
    options = {**rank, "targets": roles, "lora_dropout": 0.0, "init_lora_weights": "pissa"}
    on = attach(tiny("bert"), PeftConfig.of([Placement.of("lora", LAYERS, options)]))
    config = peft.LoraConfig(target_modules=sites(*roles), init_lora_weights="pissa", **rank)
    theirs = peft.get_peft_model(tiny("bert"), config)
    batch = inputs("bert")
    for _ in range(2):
        assert torch.allclose(logits(on.model, batch), theirs.eval()(**batch).logits, atol=1e-5)
        gradients(on, theirs)
        with torch.no_grad():
            for weight in on.trainable().values():
                weight -= 0.5 * weight.grad
            for name, weight in theirs.named_parameters():
                if "lora_" in name:
                    weight -= 0.5 * weight.grad
    assert not torch.allclose(logits(on.model, batch), logits(tiny("bert"), batch), atol=1e-3)


def test_ia3() -> None:
    """Keys and values at their outputs, both outputs of sublayers at their inputs."""
    on = ours("ia3", targets=("k", "v", "o", "down"), feedforward_modules=("o", "down"))
    config = peft.IA3Config(
        target_modules=sites("k", "v", "o", "down"), feedforward_modules=sites("o", "down")
    )
    theirs = peft.get_peft_model(tiny("bert"), config)
    tensors = on.state_dict()
    keys = {
        f"layers.{layer}.ia3.{'down' if role == 'down' else f'self.{role}'}.change": site(
            layer, role
        )
        for layer in LAYERS
        for role in ("k", "v", "o", "down")
    }
    assert keys.keys() == tensors.keys()
    for name, place in keys.items():
        factor = theirs.get_submodule(f"base_model.model.{place}").ia3_l["default"]
        factor.data.copy_((1 + tensors[name]).view_as(factor))
    here, there = gradients(on, theirs)
    for name, place in keys.items():
        theirs_own = there[f"base_model.model.{place}.ia3_l.default"].flatten()
        assert torch.allclose(here[name], theirs_own, atol=1e-5)
    assert_equal(on, theirs)


def test_vera() -> None:
    """With the random matrices of HF peft, which are one for all linears of the same shape."""
    roles = ("q", "v")
    on = ours("vera", targets=roles, r=5, d_initial=0.1)
    config = peft.VeraConfig(target_modules=sites(*roles), r=5, d_initial=0.1)
    theirs = peft.get_peft_model(tiny("bert"), config)
    base = theirs.base_model
    for trained in on.sites:
        assert trained.frozen["A"].shape == base.vera_A["default"].shape
        trained.frozen["A"].copy_(base.vera_A["default"])
        trained.frozen["B"].copy_(base.vera_B["default"])
    assert len({id(trained.frozen["A"]) for trained in on.sites}) == 1
    for trained in on.sites:
        role = trained.placed.site.at.removeprefix("self.")
        module = theirs.get_submodule(f"base_model.model.{site(trained.placed.layer, role)}")
        module.vera_lambda_d["default"].data.copy_(trained.weights["d"])
        module.vera_lambda_b["default"].data.copy_(trained.weights["b"])
    here, there = gradients(on, theirs)
    for trained in on.sites:
        role = trained.placed.site.at.removeprefix("self.")
        place = f"base_model.model.{site(trained.placed.layer, role)}"
        for letter in "db":
            own = here[f"{trained.placed.key}.{letter}"]
            assert torch.allclose(own, there[f"{place}.vera_lambda_{letter}.default"], atol=1e-5)
    assert_equal(on, theirs)


PRODUCTS: Mapping[str, tuple[Any, Mapping[str, Any], Mapping[str, str]]] = {
    "loha": (
        peft.LoHaConfig,
        {"r": 3, "alpha": 6.0},
        {name: f"hada_{name}" for name in ("w1_a", "w1_b", "w2_a", "w2_b")},
    ),
    "lokr": (
        peft.LoKrConfig,
        {"r": 2, "alpha": 6.0},
        {name: f"lokr_{name}" for name in ("w1", "w2_a", "w2_b")},
    ),
    "hira": (peft.HiraConfig, {"r": 3}, {"A": "hira_A", "B": "hira_B"}),
}
"""The configuration of HF peft, options, and its names of our tensors."""


@pytest.mark.parametrize("method", PRODUCTS)
def test_products(method: str) -> None:
    kind, options, names = PRODUCTS[method]
    roles = ("q", "down")
    on = ours(method, targets=roles, **options)
    theirs = peft.get_peft_model(tiny("bert"), kind(target_modules=sites(*roles), **options))
    places = {}
    for trained in on.sites:
        role = trained.placed.site.at.removeprefix("self.")
        place = f"base_model.model.{site(trained.placed.layer, role)}"
        assert trained.weights.keys() == names.keys()
        for name, weight in trained.weights.items():
            tensors = getattr(theirs.get_submodule(place), names[name])
            assert tensors["default"].shape == weight.shape
            tensors["default"].data.copy_(weight)
            places[f"{trained.placed.key}.{name}"] = f"{place}.{names[name]}.default"
    here, there = gradients(on, theirs)
    for name, place in places.items():
        assert torch.allclose(here[name], there[place], atol=1e-5)
    assert_equal(on, theirs)


def test_moslora() -> None:
    """A closed form: LoRA with M A in place of A."""
    options = {"targets": ("q", "v"), "r": 3, "lora_alpha": 6.0, "lora_dropout": 0.0}
    on = ours("moslora", **options)
    plain = attach(tiny("bert"), PeftConfig.of([Placement.of("lora", LAYERS, options)]))
    tensors = on.state_dict()
    state = {}
    for name in plain.state_dict():
        at = name.replace(".lora.", ".moslora.")
        state[name] = tensors[at]
        if at.endswith(".A"):
            state[name] = tensors[f"{at[:-1]}M"] @ tensors[at]
    plain.load_state_dict(state)
    batch = inputs("bert")
    assert torch.allclose(logits(on.model, batch), logits(plain.model, batch), atol=1e-5)


def test_norm_tuning() -> None:
    """Of LayerNorm: the weights themselves, as HF peft trains them."""
    on = ours("norm")
    config = peft.LNTuningConfig(target_modules=["LayerNorm"])
    theirs = peft.get_peft_model(tiny("bert"), config)
    tensors = on.state_dict()
    modules = dict(theirs.base_model.model.named_modules())
    names = {t.placed.site.at: t.placed.key for t in on.sites}
    assert len(names) == 5
    for path, key in names.items():
        tuned = modules[path].ln_tuning_layers["default"]
        scale = 1 + tensors[f"{key}.scale"]
        tuned.weight.data.copy_(tuned.weight * scale)
        tuned.bias.data.copy_(tuned.bias * scale + tensors[f"{key}.bias"])
    batch = inputs("bert")
    assert torch.allclose(logits(on.model, batch), theirs.eval()(**batch).logits, atol=1e-5)
    on.merge()
    for path in names:
        mine, other = on.model.get_submodule(path), modules[path].ln_tuning_layers["default"]
        assert torch.allclose(mine.weight, other.weight, atol=1e-6)
        assert torch.allclose(mine.bias, other.bias, atol=1e-6)


def test_the_rate_of_b_is_that_of_a_times_a_ratio() -> None:
    on = ours("lora", targets=("q",), r=2, lora_alpha=4.0, lora_dropout=0.0, loraplus_lr_ratio=16.0)
    groups = on._member.groups
    sizes = {rate: [tuple(w.shape) for w in group] for rate, group in groups.items() if group}
    assert sizes == {1e-3: [(2, 32)] * 2, 16e-3: [(32, 2)] * 2}


def test_norms_that_keep_their_difference_from_one_merge() -> None:
    """Gemma's: 1 + weight is the factor, and is multiplied by 1 + scale."""
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "vocab_size": 99}
    config = tf.GemmaConfig(num_attention_heads=4, num_key_value_heads=2, head_dim=8, **sizes)
    torch.manual_seed(0)
    model = tf.GemmaForCausalLM(config).eval()
    for name, weight in model.named_parameters():
        if "norm" in name:
            weight.data.normal_(0.0, 0.3)
    ids = torch.arange(5, 13)[None]
    on = attach(model, PeftConfig.of([Placement.of("norm", LAYERS, {})]))
    with torch.no_grad():
        for weight in on.trainable().values():
            weight.add_(0.2 * torch.randn(weight.shape))
        trained = model(input_ids=ids).logits
        on.merge()
        assert torch.allclose(model(input_ids=ids).logits, trained, atol=1e-5)
