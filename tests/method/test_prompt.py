from __future__ import annotations

import copy

import peft
import pytest
import torch
import transformers as tf
from transformers import GenerationConfig

from autopeft.core.config import PeftConfig, Placement
from autopeft.core.errors import AttachError
from autopeft.method.attach import Attached, attach
from autopeft.method.member import draw
from autopeft.method.pack import Pack
from tests.backbones import inputs, logits, tiny
from tests.contracts.method import stir

LENGTH = 3


def prompt(model, layers=range(2), length: int = LENGTH, **options) -> Attached:
    placement = Placement.of("prompt", layers, {"length": length, **options})
    on = attach(model, PeftConfig.of([placement]))
    stir(on)
    return on


def both_stacks(architecture: str) -> range:
    return range(4 if architecture in ("t5", "bart") else 2)


def by_hand(model, batch, vectors: list[torch.Tensor | None]) -> torch.Tensor:
    """What BERT gives with those vectors before its layers; None keeps what came out before."""
    bert, states = model.bert, model.bert.embeddings(batch["input_ids"])
    n_text = states.shape[1]
    for layer, own in zip(bert.encoder.layer, vectors, strict=True):
        if own is not None:
            states = torch.cat([own.expand(len(states), -1, -1), states[:, -n_text:]], dim=1)
        seen = torch.ones(len(states), states.shape[1] - n_text, dtype=torch.long)
        mask = torch.cat([seen, batch["attention_mask"]], dim=1).bool()[:, None, None]
        states = layer(states, mask)
    return model.classifier(bert.pooler(states[:, -n_text:]))


@pytest.mark.parametrize(
    ("layers", "deep"), [(range(2), False), (range(2), True), ([1], False), ([0], False)]
)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_equals_bert_on_longer_hidden_states(layers, deep: bool, attention: str) -> None:
    model, batch = tiny("bert", attn_implementation=attention), inputs("bert")
    plain = tiny("bert")
    tensors = prompt(model, layers, deep=deep).trainable()
    if deep:
        vectors = [tensors[f"layers.{i}.prompt.layer.vectors"] for i in range(2)]
    else:
        (shared,) = tensors.values()
        none = shared.new_zeros(0, shared.shape[1])
        vectors = {2: [shared, None], 1: [none, shared]}[len(layers)]
        vectors = [shared, none] if list(layers) == [0] else vectors
    expected = by_hand(plain, batch, vectors)
    assert torch.allclose(logits(model, batch), expected, atol=1e-5)
    assert not torch.allclose(logits(plain, batch), expected, atol=1e-3)


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "phi3"])
@pytest.mark.parametrize("network", [False, True])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_equals_peft_where_positions_are_rotations(architecture, network, attention) -> None:
    model = tiny(architecture, attn_implementation=attention)
    batch, width = inputs(architecture), model.config.hidden_size
    plain = copy.deepcopy(model)
    kind, extra = peft.PromptTuningConfig, {}
    if network:
        kind, extra = peft.PromptEncoderConfig, {"encoder_hidden_size": 6}
    theirs = peft.get_peft_model(
        plain, kind(task_type="CAUSAL_LM", num_virtual_tokens=LENGTH, **extra)
    ).eval()
    options = {"encoder_reparameterization_type": "mlp", **extra} if network else {}
    ours = prompt(model, **options)
    encoder = theirs.prompt_encoder["default"]
    own = {name.split(".", 3)[-1]: tensor for name, tensor in ours.trainable().items()}
    with torch.no_grad():
        if network:
            encoder.embedding.weight.copy_(own["embedding"])
            for name, index in (("inner", 0), ("middle", 2), ("outer", 4)):
                encoder.mlp_head[index].weight.copy_(own[f"{name}.weight"])
                encoder.mlp_head[index].bias.copy_(own[f"{name}.bias"])
        else:
            encoder.embedding.weight.copy_(own["vectors"])
    assert encoder.embedding.weight.shape == (LENGTH, width)
    expected = logits(theirs, batch)[:, LENGTH:]
    real = batch["attention_mask"].bool()
    assert torch.allclose(logits(model, batch)[real], expected[real], atol=1e-5)
    assert not torch.allclose(logits(plain, batch)[real], expected[real], atol=1e-2)


def test_deep_prompts_of_images_stand_in_every_layer() -> None:
    model, batch = tiny("vit"), inputs("vit")
    plain = copy.deepcopy(model)
    tensors = prompt(model, deep=True).trainable()
    states = plain.vit.embeddings(batch["pixel_values"])
    for i, layer in enumerate(plain.vit.layers):
        own = tensors[f"layers.{i}.prompt.layer.vectors"].expand(len(states), -1, -1)
        states = layer(torch.cat([states, own], dim=1))[:, : states.shape[1]]
    expected = plain.classifier(plain.vit.layernorm(states)[:, 0])
    assert torch.allclose(logits(model, batch), expected, atol=1e-5)


@pytest.mark.parametrize("architecture", ["bert", "llama", "gpt2", "t5", "bart"])
def test_eager_and_fused_attention_agree(architecture: str) -> None:
    outputs = []
    for attention in ("eager", "sdpa"):
        model = tiny(architecture, attn_implementation=attention)
        prompt(model, both_stacks(architecture))
        outputs.append(logits(model, inputs(architecture)))
    assert torch.allclose(*outputs, atol=1e-4)


@pytest.mark.parametrize("architecture", ["bert", "llama", "gpt2", "t5", "bart"])
def test_padding_does_not_leak(architecture: str) -> None:
    model, batch = tiny(architecture), inputs(architecture)
    prompt(model, both_stacks(architecture))
    together = logits(model, batch)
    cut = {name: 8 if name == "decoder_input_ids" else 4 for name in batch}
    row = {name: tensor[2:3, : cut[name]] for name, tensor in batch.items()}
    alone = logits(model, row)
    within = together[2:3, :4] if architecture in ("llama", "gpt2") else together[2:3]
    assert torch.allclose(alone, within, atol=1e-4)


def generated(model, batch, use_cache: bool, **settings) -> torch.Tensor:
    """The logits of six more tokens."""
    config = GenerationConfig(
        max_new_tokens=6,
        min_new_tokens=6,
        use_cache=use_cache,
        output_logits=True,
        return_dict_in_generate=True,
        decoder_start_token_id=0,
        pad_token_id=0,
        **settings,
    )
    return torch.stack(model.generate(**batch, generation_config=config).logits)


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "mistral", "gpt_neox", "t5", "bart"])
@pytest.mark.parametrize("beams", [1, 2])
def test_generation_with_and_without_cache_agrees(architecture: str, beams: int) -> None:
    model = tiny(architecture)
    batch = {k: v for k, v in inputs(architecture).items() if k != "decoder_input_ids"}
    if architecture not in ("t5", "bart"):
        batch = {name: tensor.flip(1) for name, tensor in batch.items()}
    plain = generated(model, batch, use_cache=True, num_beams=beams)
    prompt(model, both_stacks(architecture))
    cached = generated(model, batch, use_cache=True, num_beams=beams)
    anew = generated(model, batch, use_cache=False, num_beams=beams)
    assert torch.allclose(cached, anew, atol=1e-3)
    assert not torch.allclose(cached, plain, atol=1e-2)


@pytest.mark.parametrize("layers", [[0], [1], [2], [0, 2], [0, 1, 2, 3]])
def test_distances_are_those_of_the_text(layers) -> None:
    """A prompt that hides behind the text's own states changes attention as more keys do."""
    model, batch = tiny("t5"), inputs("t5")
    plain = logits(model, batch)
    on = prompt(model, layers)
    assert not torch.allclose(logits(model, batch), plain, atol=1e-2)
    names = ("encoder", "decoder")
    blocks = [block for name in names for block in model.get_submodule(name).block]
    biases: list[torch.Tensor] = []
    for block in blocks:
        block.register_forward_hook(lambda module, args, out: biases.append(out[1]))
    logits(model, batch)
    assert [b.shape[-2:] for b in biases] == [(8, 8)] * 2 + [(5, 5)] * 2
    told = biases[0].clone()
    on.detach()
    biases.clear()
    logits(model, batch)
    assert torch.allclose(told, biases[0])


def test_a_prompt_and_a_prefix_stand_together() -> None:
    """In the last layer a prompt is a prefix of what keys and values make of it."""
    model, batch = tiny("bert"), inputs("bert")
    placements = [
        Placement.of("prompt", [1], {"length": 2}),
        Placement.of("prefix", [0, 1], {"length": 3}),
    ]
    on = attach(model, PeftConfig.of(placements))
    stir(on)
    together = logits(model, batch)
    vectors = on.trainable()["shared.prompt.width 32.vectors"].detach()
    attention = model.bert.encoder.layer[1].attention.self
    with torch.no_grad():
        rows = attention.key(vectors), attention.value(vectors)
    state = {name: tensor.clone() for name, tensor in on.state_dict().items()}
    on.detach()
    again = attach(
        model,
        PeftConfig.of(
            [
                Placement.of("prefix", [0], {"length": 3}),
                Placement.of("prefix", [1], {"length": 5}),
            ]
        ),
    )
    with torch.no_grad():
        for name, row in zip(("key", "value"), rows, strict=True):
            own = again.trainable()
            own[f"layers.0.prefix.self.{name}"].copy_(state[f"layers.0.prefix.self.{name}"])
            both = torch.cat([state[f"layers.1.prefix.self.{name}"], row])
            own[f"layers.1.prefix.self.{name}"].copy_(both)
    assert torch.allclose(logits(model, batch), together, atol=1e-5)


def test_members_of_a_pack_generate_what_they_do_alone() -> None:
    model, batch = tiny("llama"), inputs("llama", padded=False)
    configs = [
        [Placement.of("prompt", range(2), {"length": 4})],
        [Placement.of("prompt", [1], {"length": 2}), Placement.of("lora", range(2), {"r": 2})],
        [Placement.of("lora", range(2), {"r": 2})],
    ]
    members = [draw(model, PeftConfig.of(placements)) for placements in configs]
    for seed, member in enumerate(members):
        stir(member, seed)
    expected = []
    for row, member in enumerate(members):
        pack = Pack(model)
        pack.join(member)
        one = {name: tensor[row : row + 1] for name, tensor in batch.items()}
        expected.append(generated(model, one, use_cache=True))
        pack.close()
    pack = Pack(model)
    for member in members:
        pack.join(member)
    pack.split([1, 1, 1])
    together = generated(model, batch, use_cache=True)
    assert torch.allclose(together, torch.cat(expected, dim=1), atol=1e-4)


def test_layers_that_know_more_of_positions_are_refused() -> None:
    swin = {"embed_dim": 16, "depths": [1, 1], "num_heads": [2, 4], "image_size": 16}
    windows = tf.AutoModel.from_config(tf.SwinConfig(**swin))
    for model, reason in ((windows, "takes input_dimensions"), (tiny("mpnet"), "Interface")):
        with pytest.raises(AttachError, match=reason):
            prompt(model)
        assert not any(module._forward_pre_hooks for module in model.modules())
        assert all(parameter.requires_grad for parameter in model.parameters())
