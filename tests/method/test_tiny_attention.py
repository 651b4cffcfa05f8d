from __future__ import annotations

import copy

import pytest
import torch
import transformers as tf

from autopeft.core.config import PeftConfig, Placement
from autopeft.method.attach import Attached, attach
from autopeft.method.count import count
from autopeft.method.registry import METHODS, build
from autopeft.method.sites import shape_of
from tests.backbones import inputs, logits, tiny
from tests.contracts.method import stir

HEADS, HEAD_DIM, PROMPT = 3, 2, 2


def attentive(model, *others: Placement, **options) -> Attached:
    tiny_heads = {"at": "both", "head_dim": HEAD_DIM, "num_heads": HEADS, **options}
    placements = [Placement.of("tiny-attention", range(2), tiny_heads), *others]
    on = attach(model, PeftConfig.of(placements))
    stir(on)
    return on


def added(tensors, x: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """What one adapter adds, head by head and position by position; seen (rows, from, to)."""
    mean, variance = x.mean(-1, True), x.var(-1, unbiased=False, keepdim=True)
    normal = (x - mean) / (variance + 1e-5).sqrt()
    normal = normal * tensors["norm.weight"] + tensors["norm.bias"]
    total = tensors["up.bias"].expand(x.shape).clone()
    for head in range(HEADS):
        own = slice(head * HEAD_DIM, (head + 1) * HEAD_DIM)
        query = normal @ tensors["query.weight"][own].T + tensors["query.bias"][own]
        key, value = (normal @ tensors[f"{name}.weight"][own].T for name in ("key", "value"))
        for row in range(len(x)):
            for here in range(x.shape[1]):
                there = seen[row, here].nonzero().flatten()
                weights = (key[row, there] @ query[row, here] / HEAD_DIM**0.5).softmax(0)
                total[row, here] += tensors["up.weight"][:, own] @ (weights @ value[row, there])
    return total


def by_hand(model, on: Attached, batch, form: str, before=None) -> torch.Tensor:
    """What BERT gives with the adapters, on the positions `before` those of the text, too."""
    states, mask = model.bert.embeddings(batch["input_ids"]), batch["attention_mask"]
    n = 0 if before is None else len(before)
    if before is not None:
        states = torch.cat([before.expand(len(states), -1, -1), states], dim=1)
        mask = torch.cat([mask.new_ones(len(mask), n), mask], dim=1)
    seen = mask[:, None].expand(-1, mask.shape[1], -1)
    tensors = on.state_dict()

    def of(layer: int, site: str, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        stem = f"layers.{layer}.tiny-attention.{site}."
        own = {k.removeprefix(stem): t for k, t in tensors.items() if k.startswith(stem)}
        return y + added(own, y if form == "sequential" else x, seen)

    for i, layer in enumerate(model.bert.encoder.layer):
        inner, output = layer.attention, layer.output
        attended = inner.self(states, mask.bool()[:, None, None])[0]
        attended = of(i, "self", states, inner.output.dense(attended))
        states = inner.output.LayerNorm(states + attended)
        forward = of(i, "ffn", states, output.dense(layer.intermediate(states)))
        states = output.LayerNorm(states + forward)
    return model.classifier(model.bert.pooler(states[:, n:]))


@pytest.mark.parametrize("form", ["sequential", "parallel"])
@pytest.mark.parametrize("prompted", [False, True])
def test_equals_the_formula(form: str, prompted: bool) -> None:
    model, batch = tiny("bert"), inputs("bert")
    plain = copy.deepcopy(model)
    prompt = Placement.of("prompt", range(2), {"length": PROMPT})
    on = attentive(model, *[prompt] * prompted, form=form)
    before = on.trainable()["shared.prompt.width 32.vectors"] if prompted else None
    expected = by_hand(plain, on, batch, form, before)
    assert torch.allclose(logits(model, batch), expected, atol=1e-5)
    assert not torch.allclose(logits(plain, batch), expected, atol=1e-2)


def test_a_position_learns_of_the_others() -> None:
    """Where nothing else mixes positions, another token makes a difference to the first."""
    model, batch = tiny("llama"), inputs("llama", padded=False)
    for layer in model.model.layers:
        layer.self_attn.v_proj.weight.data.zero_()
    other = {**batch, "input_ids": batch["input_ids"].clone()}
    other["input_ids"][:, 0] = (other["input_ids"][:, 0] + 1) % 99
    assert torch.equal(logits(model, batch)[:, -1], logits(model, other)[:, -1])
    attentive(model)
    assert not torch.allclose(logits(model, batch)[:, -1], logits(model, other)[:, -1], atol=1e-3)


def test_one_head_of_one_number_has_the_published_share_of_parameters() -> None:
    """0.05 % of RoBERTa-large."""
    sizes = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16}
    vocabulary = {"vocab_size": 50265, "max_position_embeddings": 514, "type_vocab_size": 1}
    with torch.device("meta"):
        config = tf.RobertaConfig(**sizes, **vocabulary, intermediate_size=4096)
        model = tf.AutoModel.from_config(config)
    options = {"at": "attention", "head_dim": 1, "num_heads": 1}
    config = PeftConfig.of([Placement.of("tiny-attention", range(24), options)])
    share = count(config, shape_of(model)).trainable / model.num_parameters()
    assert round(100 * share, 2) == 0.05


def test_layers_without_self_attention_have_no_site() -> None:
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "vocab_size": 99}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "pad_token_id": 0}
    config = tf.JambaConfig(**sizes, **heads, attn_layer_period=2, attn_layer_offset=1)
    with torch.device("meta"):
        model = tf.AutoModelForCausalLM.from_config(config)
    mamba, attention = shape_of(model).layers
    ours, theirs = (
        build(Placement.of(name, [0], {**METHODS[name].example, "at": "both"}))
        for name in ("tiny-attention", "adapter")
    )
    assert [site.name for site in ours.sites(attention)] == ["self"]
    assert [site.name for site in theirs.sites(mamba)] == ["ffn"]
    assert ours.sites(mamba) == ()
