"""Methods whose parts attend to a whole text: no position knows of later ones, and no cache."""

from __future__ import annotations

import pytest
import torch
from transformers import GenerationConfig

from autopeft.core.config import PeftConfig, Placement
from autopeft.core.errors import AttachError
from autopeft.method.attach import attach
from autopeft.method.registry import METHODS
from tests.backbones import inputs, logits, tiny
from tests.contracts.method import placement, stir

ATTENTIVE = sorted(name for name, kind in METHODS.items() if not kind.in_cache)


def put_on(model, method: str, *others: Placement) -> None:
    stir(attach(model, PeftConfig.of([placement(method, range(2)), *others])))


@pytest.mark.parametrize("prompted", [False, True])
@pytest.mark.parametrize("method", ATTENTIVE)
def test_later_tokens_and_padding_change_nothing_before(method: str, prompted: bool) -> None:
    model, batch = tiny("llama"), inputs("llama")
    plain = logits(model, batch)
    put_on(model, method, *[Placement.of("prompt", range(2), {"length": 2})] * prompted)
    whole = logits(model, batch)
    assert not torch.allclose(whole, plain, atol=1e-2)
    row = {name: tensor[2:3, :4] for name, tensor in batch.items()}
    assert torch.allclose(logits(model, row), whole[2:3, :4], atol=1e-5)
    sooner = {name: tensor[:, :3] for name, tensor in batch.items()}
    assert torch.allclose(logits(model, sooner), whole[:, :3], atol=1e-5)


@pytest.mark.parametrize("method", ATTENTIVE)
def test_generation_with_a_cache_is_refused(method: str) -> None:
    model, batch = tiny("llama"), inputs("llama", padded=False)
    put_on(model, method)
    settings = {"max_new_tokens": 3, "pad_token_id": 0, "do_sample": False}
    ids = model.generate(**batch, generation_config=GenerationConfig(**settings, use_cache=False))
    step = model(input_ids=ids[:, :-1]).logits[:, -1].argmax(-1)
    assert torch.equal(step, ids[:, -1])
    with pytest.raises(AttachError, match="use_cache=False"):
        model.generate(**batch, generation_config=GenerationConfig(**settings, use_cache=True))


def test_there_are_such_methods() -> None:
    assert ATTENTIVE == ["ladder", "tiny-attention"]
