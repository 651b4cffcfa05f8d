"""What linears do is what they are taken for, and a wrong role is found out."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf

from autopeft.api.plan import plan
from autopeft.core.errors import AttachError
from autopeft.method.sites import Layer, layers_of
from autopeft.model import proof
from autopeft.model.proof import check_sites, wrong_roles

Kind = type[tf.PreTrainedModel]
_WIDE = {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 48, "vocab_size": 99}
_DECODER = {**_WIDE, "num_hidden_layers": 2, "num_key_value_heads": 2, "pad_token_id": 0}
_GPT = {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 99}
_T5 = {
    "d_model": 1024,
    "d_kv": 128,
    "num_heads": 32,
    "d_ff": 2048,
    "num_layers": 2,
    "vocab_size": 99,
}

MODELS: Mapping[Kind, tf.PreTrainedConfig] = {
    tf.AlbertModel: tf.AlbertConfig(**_WIDE, num_hidden_layers=3),
    tf.BertForSequenceClassification: tf.BertConfig(**_WIDE),
    tf.BertModel: tf.BertConfig(**{**_WIDE, "intermediate_size": 16}),
    tf.BloomForCausalLM: tf.BloomConfig(hidden_size=32, n_head=4, n_layer=2, vocab_size=99),
    tf.DebertaV2ForSequenceClassification: tf.DebertaV2Config(
        **_WIDE, relative_attention=True, pos_att_type=["c2p", "p2c"], share_att_key=True
    ),
    tf.GPT2LMHeadModel: tf.GPT2Config(**_GPT),
    tf.GPTNeoXForCausalLM: tf.GPTNeoXConfig(**_WIDE, num_hidden_layers=2),
    tf.Gemma3ForConditionalGeneration: tf.Gemma3Config(
        text_config={**_DECODER, "head_dim": 8},
        vision_config={**_WIDE, "num_hidden_layers": 2, "image_size": 28, "patch_size": 14},
    ),
    tf.KimiLinearForCausalLM: tf.KimiLinearConfig(
        **{k: v for k, v in _DECODER.items() if k != "head_dim"},
        linear_num_heads=4,
        linear_head_dim=8,
        n_routed_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=48,
        layer_types=["linear_attention", "full_attention"],
    ),
    tf.Lfm2ForCausalLM: tf.Lfm2Config(
        **_DECODER, layer_types=["conv", "full_attention"], block_multiple_of=16
    ),
    tf.LlamaForCausalLM: tf.LlamaConfig(**_DECODER),
    tf.LongformerForSequenceClassification: tf.LongformerConfig(**_WIDE, attention_window=8),
    tf.MixtralForCausalLM: tf.MixtralConfig(**_DECODER),
    tf.ModernBertForSequenceClassification: tf.ModernBertConfig(
        **_WIDE, num_hidden_layers=3, pad_token_id=0
    ),
    tf.PegasusXForConditionalGeneration: tf.PegasusXConfig(
        **{f"{side}_layers": 2 for side in ("encoder", "decoder")},
        d_model=32,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        vocab_size=99,
        block_size=8,
        num_global_tokens=2,
    ),
    tf.Phi3ForCausalLM: tf.Phi3Config(**_DECODER),
    tf.Qwen3NextForCausalLM: tf.Qwen3NextConfig(**{**_DECODER, "num_hidden_layers": 4}),
    tf.RecurrentGemmaForCausalLM: tf.RecurrentGemmaConfig(
        **{**_DECODER, "num_key_value_heads": 1, "num_hidden_layers": 3}, lru_width=32
    ),
    tf.SwinForImageClassification: tf.SwinConfig(
        image_size=32, patch_size=4, embed_dim=16, depths=[1, 1], num_heads=[2, 4], window_size=4
    ),
    tf.T5ForConditionalGeneration: tf.T5Config(**_T5),
    tf.T5EncoderModel: tf.T5Config(**_T5, feed_forward_proj="gated-relu"),
}
CODEGEN = tf.CodeGenConfig(**_GPT, n_positions=64, rotary_dim=8)


def weightless(kind: Kind, config: tf.PreTrainedConfig) -> tf.PreTrainedModel:
    with torch.device("meta"):
        return kind._from_config(config)


def test_names_tell_more_than_the_order_of_linears() -> None:
    """LFM2 calls the gate w1, which comes first, and its convolutions have linears as well."""
    first, second = layers_of(weightless(tf.Lfm2ForCausalLM, MODELS[tf.Lfm2ForCausalLM]))
    for layer in (first, second):
        names = {role: layer.linears[role].path.rpartition(".")[2] for role in ("gate", "up")}
        assert names == {"gate": "w1", "up": "w3"}


@pytest.mark.parametrize("kind", MODELS, ids=lambda kind: kind.__name__)
def test_roles_are_what_they_are_called(kind: Kind) -> None:
    model = weightless(kind, MODELS[kind])
    roles = {role for layer in layers_of(model) for role in layer.linears}
    assert roles & {"self.q", "up"}
    assert wrong_roles(model) == {}


def test_a_large_model_needs_no_weights() -> None:
    """All parameters of seven billion, and all experts, are one number each."""
    config = tf.MixtralConfig(hidden_size=4096, num_hidden_layers=32)
    assert wrong_roles(weightless(tf.MixtralForCausalLM, config)) == {}


@pytest.mark.parametrize(
    ("one", "other", "wrong"),
    [
        ("self.q", "self.k", {"self.q", "self.k"}),
        ("self.q", "self.v", {"self.q", "self.v"}),
        ("self.k", "self.v", {"self.k", "self.v"}),
        ("up", "gate", {"up", "gate"}),
        ("up", "down", {"up", "gate"}),
        ("self.v", "self.o", {"self.q", "self.k", "self.o"}),
    ],
)
@pytest.mark.parametrize("kind", [tf.LlamaForCausalLM, tf.Phi3ForCausalLM, tf.T5EncoderModel])
def test_roles_that_are_exchanged_are_found_out(
    kind: Kind, one: str, other: str, wrong: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With separate and fused linears, and with a gate whose activation is piecewise linear."""

    def exchanged(layer: Layer) -> Layer:
        sites = dict(layer.linears)
        sites[one], sites[other] = layer.linears[other], layer.linears[one]
        return replace(layer, linears=sites)

    monkeypatch.setattr(proof, "layers_of", lambda model: [*map(exchanged, layers_of(model))])
    assert wrong_roles(weightless(kind, MODELS[kind])).keys() & wrong


def test_an_architecture_that_is_misread_is_refused(tmp_path: Path) -> None:
    """CodeGen's fused projection holds queries, values and keys of blocks in this order."""
    CODEGEN.save_pretrained(tmp_path)
    reason = (
        "^model: CodeGenForCausalLM is not understood: self.q acts on other positions; self.v does "
        "not act linearly on self.o; of its 2 layers there is self.q in 2, .* down in 2$"
    )
    for _ in range(2):
        with pytest.raises(AttachError, match=reason):
            plan("lora", str(tmp_path), task="causal-lm")


def test_what_is_proved_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("AUTOPEFT_CACHE", str(tmp_path))
    asked: list[str] = []

    def counted(model: tf.PreTrainedModel) -> dict[str, str]:
        asked.append(type(model).__name__)
        return wrong_roles(model)

    monkeypatch.setattr(proof, "wrong_roles", counted)
    kinds: list[tuple[Kind, Any]] = [
        (tf.LlamaForCausalLM, MODELS[tf.LlamaForCausalLM]),
        (tf.LlamaForCausalLM, tf.LlamaConfig(**{**_DECODER, "hidden_size": 64})),
        (tf.GPT2LMHeadModel, MODELS[tf.GPT2LMHeadModel]),
    ]
    for _ in range(2):
        for kind, config in kinds:
            check_sites(weightless(kind, config))
    assert asked == ["LlamaForCausalLM", "LlamaForCausalLM", "GPT2LMHeadModel"]
    monkeypatch.setattr(proof, "layers_of", lambda model: layers_of(model)[:1])
    check_sites(weightless(*kinds[0]))
    assert len(asked) == 4, "other roles are proved anew"
    assert caplog.messages == []


def test_a_model_that_does_not_run_on_a_few_tokens_is_taken_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One of sounds has no tokens to read."""
    monkeypatch.setenv("AUTOPEFT_CACHE", str(tmp_path))
    layers = {f"{side}_layers": 2 for side in ("encoder", "decoder")}
    config = tf.WhisperConfig(d_model=384, vocab_size=99, pad_token_id=0, **layers)
    with caplog.at_level(logging.WARNING, "autopeft"):
        check_sites(weightless(tf.WhisperForConditionalGeneration, config))
    said = caplog.records[-1].getMessage()
    assert said.startswith("what the linears of WhisperForConditionalGeneration do is not proved: ")
