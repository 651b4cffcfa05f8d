from __future__ import annotations

import pytest
import torch
import transformers as tf
from torch import nn
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from autopeft.core.config import PeftConfig, Placement
from autopeft.core.errors import AttachError
from autopeft.core.shape import Linear, Norm
from autopeft.method.attach import attach
from autopeft.method.sites import layers_of, shape_of
from tests.backbones import ARCHITECTURES, LAYERS, inputs, tiny
from tests.contracts.method import stir

SELF = ["self.q", "self.k", "self.v", "self.o"]
CROSS = ["cross.q", "cross.k", "cross.v", "cross.o"]
PLAIN, GATED = ["up", "down"], ["up", "gate", "down"]


@pytest.mark.parametrize(
    ("architecture", "roles"),
    [
        ("bert", SELF + PLAIN),
        ("roberta", SELF + PLAIN),
        ("distilbert", SELF + PLAIN),
        ("deberta-v2", SELF + PLAIN),
        ("gpt2", SELF + PLAIN),
        ("vit", SELF + PLAIN),
        ("llama", SELF + GATED),
        ("qwen2", SELF + GATED),
        ("mistral", SELF + GATED),
        ("phi3", SELF + GATED),
        ("t5", SELF + CROSS + PLAIN),
        ("bart", SELF + CROSS + PLAIN),
    ],
)
def test_roles_of_the_last_layer(architecture: str, roles: list[str]) -> None:
    layer = shape_of(tiny(architecture)).layers[-1]
    assert [linear.role for linear in layer.linears] == roles
    assert layer.width == 32


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_shapes_are_those_of_the_forward_pass(architecture: str) -> None:
    model = tiny(architecture)
    seen: dict[nn.Module, tuple[int, int]] = {}
    for layer in layers_of(model):
        for site in layer.linears.values():
            site.module.register_forward_hook(
                lambda m, x, y: seen.update({m: (x[0].shape[-1], y.shape[-1])})
            )
    model(**inputs(architecture))
    for layer in layers_of(model):
        total: dict[nn.Module, int] = {}
        for site in layer.linears.values():
            assert site.shape.inputs == seen[site.module][0]
            total[site.module] = total.get(site.module, 0) + site.shape.outputs
        assert total == {module: seen[module][1] for module in total}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_bias_and_norm_of_the_layers_is_found(architecture: str) -> None:
    model = tiny(architecture)
    shape = shape_of(model)
    assert len(shape.layers) == LAYERS * (2 if architecture in ("t5", "bart") else 1)
    found = sum(linear.bias for layer in shape.layers for linear in layer.linears)
    fused = 2 * LAYERS if architecture == "gpt2" else 0
    inside = [layer.path for layer in layers_of(model)]
    linears = [
        name
        for name, p in model.named_parameters()
        if any(name.startswith(f"{path}.") for path in inside)
        and name.endswith(".bias")
        and "norm" not in name.lower()
        and "ln_" not in name
    ]
    assert found - fused == len(linears)


def test_stacks_are_named_only_where_there_are_two() -> None:
    assert [layer.stack for layer in shape_of(tiny("bart")).layers] == [
        "encoder",
        "encoder",
        "decoder",
        "decoder",
    ]
    assert {layer.stack for layer in shape_of(tiny("bert")).layers} == {""}
    assert {layer.stack for layer in shape_of(tiny("llama")).layers} == {""}


@pytest.mark.parametrize(
    ("architecture", "layer", "name", "bias"),
    [
        ("bert", 0, "bert.embeddings.LayerNorm", True),
        ("distilbert", 0, "distilbert.embeddings.LayerNorm", True),
        ("gpt2", -1, "transformer.ln_f", True),
        ("llama", -1, "model.norm", False),
        ("vit", -1, "vit.layernorm", True),
        ("t5", LAYERS - 1, "encoder.final_layer_norm", False),
        ("t5", -1, "decoder.final_layer_norm", False),
        ("bart", 0, "model.encoder.layernorm_embedding", True),
        ("bart", LAYERS, "model.decoder.layernorm_embedding", True),
    ],
)
def test_norms_at_the_edges(architecture: str, layer: int, name: str, bias: bool) -> None:
    norms = shape_of(tiny(architecture)).layers[layer].norms
    assert Norm(name, 32, bias) in norms
    assert norms[0 if layer in (0, LAYERS) and "emb" in name else -1].name == name


def test_norms_of_heads_are_left_out() -> None:
    config = tf.ModernBertConfig(
        vocab_size=99,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        pad_token_id=0,
        norm_bias=True,
    )
    model = tf.AutoModelForSequenceClassification.from_config(config)
    names = {norm.name for layer in shape_of(model).layers for norm in layer.norms}
    assert "model.final_norm" in names
    assert "head.norm" not in names


def test_fused_projections_are_cut_by_role() -> None:
    layer = layers_of(tiny("gpt2"))[0]
    fused = [layer.linears[f"self.{role}"] for role in "qkv"]
    assert len({site.module for site in fused}) == 1
    assert [site.columns for site in fused] == [slice(0, 32), slice(32, 64), slice(64, 96)]
    grouped = layers_of(tiny("phi3"))[0]
    assert [grouped.linears[f"self.{role}"].shape.outputs for role in "qkv"] == [32, 16, 16]
    assert grouped.linears["self.v"].columns == slice(48, 64)
    assert grouped.linears["gate"].columns == slice(0, 48)
    assert grouped.linears["up"].columns == slice(48, 96)


def fused(model: tf.PreTrainedModel) -> tuple[nn.Module, dict[str, list[int]]]:
    """The first attention and the columns of its roles as `layers_of` finds them."""
    layer = layers_of(model)[0]
    columns = {role: layer.columns(f"self.{role}") for role in "qkv"}
    return layer.attentions["self"], {
        role: torch.arange(32 * 3)[index].tolist() for role, index in columns.items()
    }


@pytest.mark.parametrize(
    "variant",
    [
        {},
        {"new_decoder_architecture": False, "multi_query": True},
        {"new_decoder_architecture": False, "multi_query": False},
    ],
)
def test_projections_fused_by_head_are_cut_as_falcon_does(variant: dict[str, bool]) -> None:
    attention, columns = fused(tiny("falcon", **variant))
    width = attention.query_key_value.out_features
    split = attention._split_heads(torch.arange(width)[None, None])
    assert columns == {
        role: sorted(set(part.flatten().tolist())) for role, part in zip("qkv", split, strict=True)
    }


def test_projections_fused_by_head_are_cut_as_bloom_does() -> None:
    attention, columns = fused(tiny("bloom"))
    split = attention._reshape(torch.arange(96)[None, None])
    for role, part in zip("qkv", split, strict=True):
        assert columns[role] == part.flatten().tolist()


@pytest.mark.parametrize("role", ["q", "k", "v"])
@pytest.mark.parametrize("architecture", ["gpt2", "gpt_neox", "phi3"])
def test_a_fused_role_reaches_its_own_argument_of_attention(architecture: str, role: str) -> None:
    seen: list[list[torch.Tensor]] = []

    def spy(module, query, key, value, *args, **options):
        seen[-1] += [query, key, value]
        return ALL_ATTENTION_FUNCTIONS["sdpa"](module, query, key, value, *args, **options)

    ALL_ATTENTION_FUNCTIONS.register("spy", spy)
    ALL_MASK_ATTENTION_FUNCTIONS.register("spy", ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])
    model, batch = tiny(architecture, attn_implementation="spy"), inputs(architecture)
    seen.append([])
    model(**batch)
    options = {"targets": (role,), "r": 2, "lora_alpha": 2, "lora_dropout": 0.0}
    stir(attach(model, PeftConfig.of([Placement.of("lora", [0], options)])))
    seen.append([])
    model(**batch)
    changed = [not torch.equal(a, b) for a, b in zip(seen[0][:3], seen[1][:3], strict=True)]
    assert changed == [role == letter for letter in "qkv"]


def test_meta_and_real_models_have_one_shape() -> None:
    with torch.device("meta"):
        empty = tf.AutoModelForSequenceClassification.from_config(tiny("bert").config)
    assert shape_of(empty) == shape_of(tiny("bert"))


def test_tied_tables_count_once_and_heads_not_at_all() -> None:
    model = tiny("bert")
    assert shape_of(model).parameters == sum(p.numel() for p in model.bert.parameters())
    t5 = tiny("t5")
    assert shape_of(t5).parameters == sum(p.numel() for p in t5.parameters())


def test_linear_shape() -> None:
    layer = shape_of(tiny("qwen2")).layers[0]
    assert layer.linear("self.k") == Linear("self.k", 32, 16, True)
    assert layer.linear("self.o") == Linear("self.o", 32, 32, False)


def test_models_without_layers_are_refused() -> None:
    config = tf.ResNetConfig(embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1])
    with pytest.raises(AttachError, match="has no transformer layers"):
        shape_of(tf.AutoModelForImageClassification.from_config(config))
