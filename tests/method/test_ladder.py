from __future__ import annotations

import copy

import pytest
import torch
import transformers as tf

from autopeft.core.config import PeftConfig, Placement
from autopeft.core.errors import AttachError
from autopeft.method.attach import Attached, attach
from tests.backbones import inputs, logits, tiny
from tests.contracts.method import stir


def ladder(model, layers=range(2), **more) -> Attached:
    placements = [Placement.of("ladder", layers, {"size": 4, **more})]
    on = attach(model, PeftConfig.of(placements))
    stir(on)
    return on


def beside(tensors, layers, states, mask) -> torch.Tensor:
    """What the network adds, from the hidden states that leave the layers."""
    side = torch.zeros(())
    for i in layers:
        own = {name: tensors[f"layers.{i}.ladder.layer.{name}"] for name in NAMES}
        fed, gate = states[i], torch.sigmoid(own["gate"] * 10)
        fed = (fed - fed.mean(-1, True)) / (fed.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
        side = gate * fed @ own["down.weight"].T + (1 - gate) * side
        query, key, value = (side @ own[f"{n}.weight"].T for n in ("query", "key", "value"))
        scores = query @ key.transpose(1, 2) / 4**0.5
        scores = scores.masked_fill(mask[:, None] == 0, float("-inf"))
        side = side + scores.softmax(-1) @ value @ own["attended.weight"].T
        inner = (side @ own["inner.weight"].T + own["inner.bias"]).clamp(min=0)
        side = side + inner @ own["outer.weight"].T + own["outer.bias"]
    return side @ tensors["shared.ladder.width 32.up.weight"].T


NAMES = (
    *("down.weight", "gate", "query.weight", "key.weight", "value.weight", "attended.weight"),
    *("inner.weight", "inner.bias", "outer.weight", "outer.bias"),
)


@pytest.mark.parametrize("layers", [range(2), [1]])
def test_equals_the_formula(layers) -> None:
    model, batch = tiny("bert"), inputs("bert")
    plain = copy.deepcopy(model)
    tensors = ladder(model, layers).trainable()
    states = plain.bert(**batch, output_hidden_states=True).hidden_states[1:]
    last = states[-1] + beside(tensors, layers, states, batch["attention_mask"])
    expected = plain.classifier(plain.bert.pooler(last))
    assert torch.allclose(logits(model, batch), expected, atol=1e-5)
    assert not torch.allclose(logits(plain, batch), expected, atol=1e-2)


def test_nothing_goes_back_through_the_backbone_below() -> None:
    model, batch = tiny("bert"), inputs("bert")
    reached: list[bool] = []
    for layer in model.bert.encoder.layer:
        layer.output.dense.register_forward_hook(
            lambda m, a, out: reached.append(out.requires_grad)
        )
    ladder(model)
    logits(model, batch)
    assert reached == [False, False]


def test_layers_above_the_placement_are_gone_through() -> None:
    model, batch = tiny("bert"), inputs("bert")
    on = ladder(model, [0])
    last = model.bert.encoder.layer[1].output.dense
    reached: list[bool] = []
    last.register_forward_hook(lambda module, args, out: reached.append(out.requires_grad))
    logits(model, batch).sum().backward()
    assert reached == [True]
    assert all(weight.grad is not None for weight in on.trainable().values())


def test_a_mask_is_seen_by_place_as_by_name() -> None:
    model, batch = tiny("bert"), inputs("bert")
    ladder(model)
    by_place = model(batch["input_ids"], batch["attention_mask"]).logits
    assert torch.equal(by_place, logits(model, batch))
    assert not torch.allclose(by_place, model(batch["input_ids"]).logits, atol=1e-3)


def test_layers_of_several_widths_are_refused() -> None:
    sizes = {"embed_dim": 16, "depths": [1, 1], "num_heads": [2, 4], "image_size": 16}
    model = tf.AutoModel.from_config(tf.SwinConfig(**sizes))
    with pytest.raises(AttachError, match=r"several widths \(16, 32\), and ladder goes along"):
        ladder(model)
