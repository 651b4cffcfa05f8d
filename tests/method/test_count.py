from __future__ import annotations

import pytest
import torch
import transformers as tf

from autopeft.core.config import PeftConfig, Placement
from autopeft.core.errors import AttachError
from autopeft.method.attach import attach
from autopeft.method.count import count, trained_elements
from autopeft.method.sites import shape_of

QV = {"targets": ("q", "v"), "r": 8, "lora_alpha": None, "lora_dropout": 0.0}
ALL = ("q", "k", "v", "o", "gate", "up", "down")
IA3 = {"targets": ("k", "v", "o", "down"), "feedforward_modules": ("o", "down")}
ADAPTER = {
    "form": "sequential",
    "at": "ffn",
    "size": 48,
    "activation": "relu",
    "bias": False,
    "scale": 1.0,
}
T5_BASE = {"d_model": 768, "d_kv": 64, "d_ff": 3072, "num_layers": 12, "num_heads": 12}


def meta(name: str) -> tf.PreTrainedModel:
    with torch.device("meta"):
        if name == "roberta-base":
            config = tf.RobertaConfig(
                vocab_size=50265, max_position_embeddings=514, type_vocab_size=1
            )
            return tf.AutoModelForSequenceClassification.from_config(config)
        if name == "bert-base":
            return tf.AutoModelForSequenceClassification.from_config(tf.BertConfig())
        if name == "t5-base":
            return tf.AutoModelForSeq2SeqLM.from_config(tf.T5Config(**T5_BASE))
        return tf.AutoModelForCausalLM.from_config(tf.LlamaConfig())


# Xu et al., "Parameter-Efficient Fine-Tuning Methods for Pretrained Language Models: A Critical
# Review and Assessment", 2023, tables III, IV and VI; Zhou et al., "AutoPEFT", 2024, for BERT.
@pytest.mark.parametrize(
    ("backbone", "method", "options", "published"),
    [
        ("roberta-base", "lora", QV, 294_912),
        ("roberta-base", "bitfit", {}, 102_144),
        ("roberta-base", "prefix", {"length": 20}, 368_640),
        ("roberta-base", "ia3", IA3, 64_512),
        ("llama-7b", "ia3", {**IA3, "targets": ALL, "feedforward_modules": ("down",)}, 1_581_056),
        ("t5-base", "lora", QV, 884_736),
        ("llama-7b", "lora", {**QV, "targets": ALL, "r": 64}, 159_907_840),
        ("bert-base", "lora", QV, 294_912),
        ("bert-base", "prefix", {"length": 10}, 184_320),
        ("bert-base", "adapter", ADAPTER, 884_736),
    ],
)
def test_counts_are_the_published_ones(backbone, method, options, published) -> None:
    model = meta(backbone)
    shape = shape_of(model)
    config = PeftConfig.of([Placement.of(method, range(len(shape.layers)), options)])
    trainable = attach(model, config).trainable()
    assert count(config, shape).trainable == published
    assert sum(weight.numel() for weight in trainable.values()) == published
    assert all(weight.is_meta for weight in trainable.values())
    assert sum(trained_elements(method, options, layer) for layer in shape.layers) == published


@pytest.mark.parametrize(("deep", "published"), [(False, 15_360), (True, 12 * 15_360)])
def test_a_prompt_counts_once_or_in_every_layer(deep: bool, published: int) -> None:
    """Twenty tokens for RoBERTa-base, table III of Xu et al. 2023."""
    model = meta("roberta-base")
    placement = Placement.of("prompt", range(12), {"length": 20, "deep": deep})
    config = PeftConfig.of([placement])
    trainable = attach(model, config).trainable()
    assert count(config, shape_of(model)).trainable == published
    assert sum(weight.numel() for weight in trainable.values()) == published


@pytest.mark.parametrize(
    ("method", "options", "of_a_layer"),
    [
        ("dora", QV, 2 * (8 * 2 * 768 + 768)),
        ("lora", {**QV, "freeze_a": True}, 2 * 8 * 768),
        (
            "vera",
            {"targets": ("q", "v", "up"), "r": 256, "d_initial": 0.1},
            3 * 256 + 2 * 768 + 3072,
        ),
        ("norm", {}, 2 * 2 * 768),
        ("moslora", QV, 2 * (8 * 2 * 768 + 64)),
        ("hira", {"targets": ("q", "v"), "r": 32, "hira_dropout": 0.0}, 2 * 32 * 2 * 768),
        ("loha", {"targets": ("q", "v"), "r": 8, "alpha": None}, 2 * 8 * 4 * 768),
        ("bitfit", {"targets": ("q", "up")}, 768 + 3072),
        ("ssf", {"norms": True}, 2 * (4 * 768 + 3072 + 768 + 2 * 768)),
        ("full", {"targets": ("q", "v")}, 2 * 768 * 769),
        ("sparse", {"targets": ("q", "v"), "r": 8}, 2 * 8 * 2 * 768),
        ("adamix", {**ADAPTER, "n_experts": 4}, 4 * 2 * 768 * 48),
        ("lokr", {"targets": ("q",), "r": 2, "alpha": None}, 24 * 24 + 2 * (32 + 32)),
    ],
)
def test_counts_are_the_closed_forms(method, options, of_a_layer) -> None:
    """Of the second layer of BERT, since the norm of the embeddings stands with the first."""
    shape = shape_of(meta("bert-base"))
    assert trained_elements(method, options, shape.layers[1]) == of_a_layer


@pytest.mark.parametrize(
    ("backbone", "parameters"),
    [
        ("bert-base", 109_482_240),
        ("t5-base", 222_903_552),
        ("roberta-base", 124_055_040),
    ],
)
def test_backbones_have_their_known_sizes(backbone: str, parameters: int) -> None:
    assert shape_of(meta(backbone)).parameters == parameters


def test_changed_counts_a_tensor_once() -> None:
    shape = shape_of(meta("bert-base"))
    twice = [Placement.of("lora", [0], QV), Placement.of("lora", [0], {**QV, "r": 4})]
    once = PeftConfig.of(twice[:1])
    assert count(PeftConfig.of(twice), shape).changed == count(once, shape).changed == 2 * 768**2
    assert count(PeftConfig.of(twice), shape).trainable == 2 * (8 + 4) * 2 * 768


def test_counts_of_a_mix() -> None:
    shape = shape_of(meta("bert-base"))
    config = PeftConfig.of(
        [
            Placement.of("adapter", [3, 4], {**ADAPTER, "at": "both", "bias": True}),
            Placement.of("bitfit", [11], {}),
            Placement.of("prefix", [0], {"length": 5}),
        ]
    )
    counts = count(config, shape)
    adapter = 2 * 2 * (2 * 48 * 768 + 48 + 768)
    bitfit = 4 * 768 + 3072 + 768 + 2 * 768
    assert counts.by_method == {"adapter": adapter, "bitfit": bitfit, "prefix": 2 * 5 * 768}
    assert counts.trainable == adapter + bitfit + 2 * 5 * 768
    assert counts.changed == bitfit


def test_nothing_counts_nothing() -> None:
    counts = count(PeftConfig(), shape_of(meta("bert-base")))
    assert (counts.trainable, counts.changed, counts.by_method) == (0, 0, {})


def test_no_element_is_trained_where_a_layer_lacks_the_site() -> None:
    shape = shape_of(meta("t5-base"))
    cross = {**QV, "targets": ("cross.q",)}
    assert trained_elements("lora", cross, shape.layers[0]) == 0
    assert trained_elements("lora", cross, shape.layers[12]) == 8 * 2 * 768


def test_count_refuses_what_does_not_fit() -> None:
    shape = shape_of(meta("t5-base"))
    with pytest.raises(AttachError, match="bitfit on layers 0, 1: none of these layers has a bias"):
        count(PeftConfig.of([Placement.of("bitfit", [0, 1], {})]), shape)
    with pytest.raises(AttachError, match="no layer 24; the backbone has 24 layers"):
        count(PeftConfig.of([Placement.of("lora", [24], QV)]), shape)
