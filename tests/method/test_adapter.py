from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from autopeft.core.config import PeftConfig, Placement
from autopeft.method.attach import Attached, attach
from tests.backbones import inputs, tiny
from tests.contracts.method import stir


def adapter(model: Any, layers: int = 2, **changes: Any) -> Attached:
    options = {
        "form": "sequential",
        "at": "both",
        "size": 6,
        "activation": "relu",
        "bias": True,
        "scale": 1.0,
        **changes,
    }
    on = attach(model, PeftConfig.of([Placement.of("adapter", range(layers), options)]))
    stir(on)
    return on


def bottleneck(
    on: Attached, site: str, activation: Callable[[Tensor], Tensor]
) -> Callable[[Tensor], Tensor]:
    tensors = {
        name.removeprefix(f"layers.0.adapter.{site}."): weight
        for name, weight in on.trainable().items()
        if name.startswith(f"layers.0.adapter.{site}.")
    }

    def delta(x: Tensor) -> Tensor:
        inner = activation(x @ tensors["down.weight"].T + tensors["down.bias"])
        return inner @ tensors["up.weight"].T + tensors["up.bias"]

    return delta


def hidden_states(model: Any, batch: dict[str, Tensor]) -> tuple[Tensor, ...]:
    states: tuple[Tensor, ...] = model(**batch, output_hidden_states=True).hidden_states
    return states


def test_sequential_adapters_stand_before_residual_and_norm() -> None:
    model, batch = tiny("bert"), inputs("bert", padded=False)
    layer = copy.deepcopy(model.bert.encoder.layer[0])
    on = adapter(model)
    x, expected = hidden_states(model, batch)[:2]
    after_attention, after_ffn = (bottleneck(on, site, F.relu) for site in ("self", "ffn"))

    h = layer.attention.output.dense(layer.attention.self(x)[0])
    h = layer.attention.output.LayerNorm(h + after_attention(h) + x)
    f = layer.output.dense(layer.intermediate(h))
    f = layer.output.LayerNorm(f + after_ffn(f) + h)
    assert torch.allclose(f, expected, atol=1e-5)


def test_parallel_adapters_see_the_input_of_the_sublayer() -> None:
    model = tiny("gpt2")
    batch = inputs("gpt2", padded=False)
    block = copy.deepcopy(model.transformer.h[0])
    on = adapter(model, form="parallel", activation="gelu", scale=4.0)
    x, expected = hidden_states(model, batch)[:2]
    beside_attention, beside_ffn = (bottleneck(on, site, F.gelu) for site in ("self", "ffn"))

    n = block.ln_1(x)
    causal = torch.ones(8, 8, dtype=torch.bool).tril()[None, None]
    q, k, v = (
        t.unflatten(-1, (4, 8)).transpose(1, 2) for t in block.attn.c_attn(n).split(32, dim=-1)
    )
    a = F.scaled_dot_product_attention(q, k, v, attn_mask=causal).transpose(1, 2).flatten(2)
    h = x + block.attn.c_proj(a) + 4 * beside_attention(n)
    m = block.ln_2(h)
    f = h + block.mlp(m) + 4 * beside_ffn(m)
    assert torch.allclose(f, expected, atol=1e-4)


@pytest.mark.parametrize("at", ["attention", "ffn", "both"])
def test_sites(at: str) -> None:
    names = {name.split(".")[3] for name in adapter(tiny("t5"), layers=4, at=at).trainable()}
    assert names == {"attention": {"self", "cross"}, "ffn": {"ffn"}}.get(
        at, {"self", "cross", "ffn"}
    )


def test_without_bias_there_are_two_tensors() -> None:
    on = adapter(tiny("bert"), layers=1, at="ffn", bias=False)
    shapes = {name: tuple(weight.shape) for name, weight in on.trainable().items()}
    assert shapes == {
        "layers.0.adapter.ffn.down.weight": (6, 32),
        "layers.0.adapter.ffn.up.weight": (32, 6),
    }


@pytest.mark.parametrize("form", ["sequential", "parallel"])
def test_adapters_follow_what_other_methods_do_to_their_linear(form: str) -> None:
    """An adapter sees the merged output, whether or not the rest has been merged."""
    low_rank = {"targets": ("o", "down"), "r": 4, "lora_alpha": 4, "lora_dropout": 0.0}
    others = [Placement.of("bitfit", [0, 1], {}), Placement.of("lora", [0, 1], low_rank)]
    options = {
        "form": form,
        "at": "both",
        "size": 6,
        "activation": "relu",
        "bias": True,
        "scale": 1.0,
    }
    own = Placement.of("adapter", [0, 1], options)
    model, batch = tiny("bert"), inputs("bert")
    together = attach(model, PeftConfig.of([*others, own]))
    stir(together)
    expected, state = model(**batch).logits, copy.deepcopy(together.state_dict())
    together.detach()
    merged = attach(model, PeftConfig.of(others))
    merged.load_state_dict({k: v for k, v in state.items() if ".adapter." not in k})
    merged.merge()
    on = attach(model, PeftConfig.of([own]))
    on.load_state_dict({k: v for k, v in state.items() if ".adapter." in k})
    assert torch.allclose(model(**batch).logits, expected, atol=1e-5)
