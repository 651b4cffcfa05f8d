from __future__ import annotations

import copy

import peft
import pytest
import torch
from transformers import DynamicCache, GenerationConfig

from autopeft.core.config import PeftConfig, Placement
from autopeft.core.errors import AttachError
from autopeft.method.attach import Attached, attach
from tests.backbones import inputs, logits, tiny
from tests.contracts.method import stir

LENGTH = 3


def prefix(model, layers: int = 2, length: int = LENGTH, **options: bool) -> Attached:
    placement = Placement.of("prefix", range(layers), {"length": length, **options})
    on = attach(model, PeftConfig.of([placement]))
    stir(on)
    with torch.no_grad():
        for weight in on.trainable().values():
            weight.mul_(4)
    return on


def by_layer(on: Attached, heads: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """(1, heads, length, head_dim) keys and values of every layer."""
    pairs = []
    for layer in range(2):
        key, value = (
            on.trainable()[f"layers.{layer}.prefix.self.{name}"].detach()
            for name in ("key", "value")
        )
        pairs.append(
            tuple(t.unflatten(-1, (heads, -1)).transpose(0, 1)[None] for t in (key, value))
        )
    return pairs


@pytest.mark.parametrize(("architecture", "heads"), [("llama", 2), ("qwen2", 2), ("gpt2", 4)])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("padded", [True, False])
def test_equals_a_cache_that_holds_the_prefix(architecture, heads, attention, padded) -> None:
    model = tiny(architecture, attn_implementation=attention)
    plain = copy.deepcopy(model)
    batch = inputs(architecture, padded)
    on = prefix(model)
    cache = DynamicCache()
    for layer, (key, value) in enumerate(by_layer(on, heads)):
        cache.update(key.repeat(3, 1, 1, 1), value.repeat(3, 1, 1, 1), layer)
    mask = torch.cat([torch.ones(3, LENGTH, dtype=torch.long), batch["attention_mask"]], dim=1)
    expected = plain(
        input_ids=batch["input_ids"],
        attention_mask=mask,
        position_ids=torch.arange(8)[None].expand(3, -1),
        past_key_values=cache,
    ).logits
    real = batch["attention_mask"].bool()
    assert torch.allclose(logits(model, batch)[real], expected[real], atol=1e-5)
    assert not torch.allclose(logits(plain, batch)[real], expected[real], atol=1e-2)


def test_equals_peft_with_positions_shifted() -> None:
    model, batch = tiny("bert"), inputs("bert")
    reference = peft.PrefixTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=LENGTH)
    theirs = peft.get_peft_model(copy.deepcopy(model), reference).eval()
    on = prefix(model)
    table = theirs.prompt_encoder["default"].embedding.weight
    rows = [
        on.trainable()[f"layers.{layer}.prefix.self.{name}"]
        for layer in range(2)
        for name in ("key", "value")
    ]
    with torch.no_grad():
        table.copy_(torch.cat(rows, dim=1))
    shifted = torch.arange(LENGTH, LENGTH + 8)[None].expand(3, -1)
    ours = model(**batch, position_ids=shifted).logits
    assert torch.allclose(ours, theirs(**batch).logits, atol=1e-5)
    assert not torch.allclose(ours, logits(model, batch), atol=1e-4)


@pytest.mark.parametrize("architecture", ["bert", "distilbert", "llama", "gpt2", "t5", "bart"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_padding_does_not_leak(architecture: str, attention: str) -> None:
    model = tiny(architecture, attn_implementation=attention)
    batch = inputs(architecture)
    plain = logits(model, batch)
    on = prefix(model, layers=4 if architecture in ("t5", "bart") else 2)
    filled = {**batch, "input_ids": batch["input_ids"] + 7 * (1 - batch["attention_mask"])}
    real = batch["attention_mask"].bool() if architecture in ("llama", "gpt2") else ...
    together = logits(model, batch)
    assert torch.equal(together[real], logits(model, filled)[real])
    row = {name: t[2:3, :4] if name != "decoder_input_ids" else t[2:3] for name, t in batch.items()}
    alone, within = logits(model, row), together[2:3]
    within = within[:, :4] if architecture in ("llama", "gpt2") else within
    assert torch.allclose(alone, within, atol=1e-4)
    on.detach()
    assert torch.equal(plain, logits(model, batch))


@pytest.mark.parametrize("architecture", ["bert", "llama", "t5", "bart", "vit"])
def test_eager_and_fused_attention_agree(architecture: str) -> None:
    layers = 4 if architecture in ("t5", "bart") else 2
    outputs = []
    for attention in ("eager", "sdpa"):
        model = tiny(architecture, attn_implementation=attention)
        prefix(model, layers)
        outputs.append(logits(model, inputs(architecture)))
    assert torch.allclose(*outputs, atol=1e-4)


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "t5", "bart"])
def test_generation_with_and_without_cache_agrees(architecture: str) -> None:
    model = tiny(architecture)
    batch = {k: v[:1] for k, v in inputs(architecture).items() if k != "decoder_input_ids"}

    def scores(use_cache: bool) -> torch.Tensor:
        settings = GenerationConfig(
            max_new_tokens=6,
            min_new_tokens=6,
            do_sample=False,
            use_cache=use_cache,
            output_logits=True,
            return_dict_in_generate=True,
            decoder_start_token_id=0,
        )
        return torch.stack(model.generate(**batch, generation_config=settings).logits)

    plain = scores(use_cache=True)
    on = prefix(model, layers=4 if architecture in ("t5", "bart") else 2)
    cached = scores(use_cache=True)
    assert torch.allclose(cached, scores(use_cache=False), atol=1e-4)
    assert not torch.allclose(cached, plain, atol=1e-2)
    on.detach()
    assert torch.equal(plain, scores(use_cache=True))


def test_lengths_may_differ_by_layer_and_add_up_at_one() -> None:
    def placed(*items: tuple[int, int]) -> Attached:
        placements = [Placement.of("prefix", [layer], {"length": n}) for layer, n in items]
        return attach(tiny("bert"), PeftConfig.of(placements))

    assert placed((0, 2), (1, 5)).trainable()["layers.1.prefix.self.value"].shape == (5, 32)
    split, whole = placed((0, 2), (0, 3)), placed((0, 5))
    stir(whole)
    with torch.no_grad():
        for name in ("key", "value"):
            rows = whole.trainable()[f"layers.0.prefix.self.{name}"]
            split.trainable()[f"layers.0.prefix.self.{name}"].copy_(rows[:2])
            split.trainable()[f"layers.0.prefix.self.2.{name}"].copy_(rows[2:])
    batch = inputs("bert")
    assert torch.allclose(logits(split.model, batch), logits(whole.model, batch), atol=1e-6)


def test_layers_without_a_prefix_are_untouched() -> None:
    model, batch = tiny("bert"), inputs("bert")
    plain = model(**batch, output_hidden_states=True).hidden_states
    on = attach(model, PeftConfig.of([Placement.of("prefix", [1], {"length": 4})]))
    stir(on)
    states = model(**batch, output_hidden_states=True).hidden_states
    assert torch.allclose(plain[1], states[1], atol=1e-6)
    assert not torch.allclose(plain[2], states[2], atol=1e-3)


@pytest.mark.parametrize("architecture", ["bert", "t5"])
def test_models_that_share_a_config_do_not_share_a_prefix(architecture: str) -> None:
    first, batch = tiny(architecture), inputs(architecture)
    second = type(first)(first.config).eval()
    second.load_state_dict(first.state_dict())
    config, plain = first.config, logits(second, batch)
    assert second.config is config
    one, two = prefix(first), prefix(second)
    expected = logits(second, batch)
    one.detach()
    assert torch.equal(logits(second, batch), expected)
    assert not torch.allclose(expected, plain, atol=1e-4)
    two.detach()
    assert first.config is second.config is config
    assert config._attn_implementation == "sdpa"
    assert torch.equal(logits(first, batch), logits(second, batch))


def adapted(model, batch, tensors) -> torch.Tensor:
    """What BERT gives with keys and values in front that count as the mean of the text says."""
    bert, mask = model.bert, batch["attention_mask"]
    states, heads = bert.embeddings(batch["input_ids"]), model.config.num_attention_heads
    for i, layer in enumerate(bert.encoder.layer):
        own = {name: tensors[f"layers.{i}.prefix.self.{name}"] for name in NAMES}
        text = [state[seen.bool()].mean(0) for state, seen in zip(states, mask, strict=True)]
        tokens = 1 / (1 + torch.exp(-torch.stack(text) @ own["alpha.weight"].T))
        counts = own["lambda"] * tokens[:, :, None]
        attention = layer.attention
        query, key, value = (
            getattr(attention.self, name)(states) for name in ("query", "key", "value")
        )
        key = torch.cat([counts * own["key"], key], dim=1)
        value = torch.cat([counts * own["value"], value], dim=1)
        query, key, value = (
            t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (query, key, value)
        )
        scores = query @ key.transpose(2, 3) / query.shape[-1] ** 0.5
        seen = torch.cat([mask.new_ones(len(mask), LENGTH), mask], dim=1)
        scores = scores.masked_fill(seen[:, None, None] == 0, float("-inf"))
        attended = (scores.softmax(-1) @ value).transpose(1, 2).flatten(2)
        states = attention.output(attended, states)
        states = layer.output(layer.intermediate(states), states)
    return model.classifier(bert.pooler(states))


NAMES = ("key", "value", "alpha.weight", "lambda")


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_an_adaptive_prefix_counts_as_the_text_says(attention: str) -> None:
    model, batch = tiny("bert", attn_implementation=attention), inputs("bert")
    plain = copy.deepcopy(model)
    on = prefix(model, adaptive=True)
    expected = adapted(plain, batch, on.state_dict())
    assert torch.allclose(logits(model, batch), expected, atol=1e-5)
    fixed = {
        **on.state_dict(),
        **{f"layers.{i}.prefix.self.lambda": torch.ones(()) for i in (0, 1)},
    }
    assert not torch.allclose(adapted(plain, batch, fixed), expected, atol=1e-3)


def test_an_adaptive_prefix_of_a_causal_layer_would_see_what_comes() -> None:
    with pytest.raises(AttachError, match="prefix on layers 0, 1: a gate averages over the whole"):
        prefix(tiny("llama"), adaptive=True)
