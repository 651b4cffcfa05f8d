from __future__ import annotations

from contextlib import ExitStack

import pytest
import torch
from torch import nn
from transformers import PreTrainedModel

from autopeft.core.config import PeftConfig, Placement
from autopeft.method.attach import attach
from autopeft.method.registry import METHODS, build
from autopeft.method.sites import layers_of, shape_of
from autopeft.model.dropout import QuickDropout
from autopeft.model.quicken import quicken
from tests.backbones import ARCHITECTURES, inputs, logits, tiny
from tests.contracts.method import attached, stir

READS_FIRST = {"bert", "roberta", "distilbert", "vit"}


def everything(model: PreTrainedModel) -> PeftConfig:
    """Every method that finds a place, at once on all layers."""
    layer = shape_of(model).layers[0]
    placements = [Placement.of(name, range(2), kind.example) for name, kind in METHODS.items()]
    return PeftConfig.of(placement for placement in placements if build(placement).sites(layer))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_logits_and_gradients_are_the_same(name: str) -> None:
    model, found = tiny(name).eval(), []
    batch = inputs(name)
    for device in ("cuda", "cpu", None):
        with ExitStack() as undo:
            if device is not None:
                quicken(model, device, undo)
            attached = attach(model, everything(model), seed=1)
            undo.callback(attached.detach)
            output = logits(model, batch)
            output.float().square().sum().backward()
            found.append((output, [p.grad for p in attached.trainable().values()]))
    for output, gradients in found[:2]:
        assert torch.allclose(output, found[2][0], rtol=1e-4, atol=1e-5)
        for ours, plain in zip(gradients, found[2][1], strict=True):
            assert torch.allclose(ours, plain, atol=1e-4 * plain.abs().max().item())


@pytest.mark.parametrize("method", ["adapter-gated", "ladder", "prefix-gated", "tiny-attention"])
def test_a_method_that_reads_the_text_gets_all_of_it(method: str) -> None:
    model, batch, found = tiny("bert").eval(), inputs("bert"), []
    for device in ("cuda", "cpu", None):
        with ExitStack() as undo:
            if device is not None:
                quicken(model, device, undo)
            on = attached(method, model)
            undo.callback(on.detach)
            stir(on)
            found.append(logits(model, batch))
    assert torch.allclose(found[0], found[2], rtol=1e-4, atol=1e-5)
    assert torch.allclose(found[1], found[2], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_last_feed_forward_network_runs_where_the_head_reads(name: str) -> None:
    model, positions = tiny(name).eval(), []
    down = layers_of(model)[-1].linears["down"].module
    down.register_forward_hook(lambda module, args, output: positions.append(output.shape[1]))
    with ExitStack() as undo:
        quicken(model, "cuda", undo)
        positions.clear()
        logits(model, inputs(name))
    (quick,) = positions
    logits(model, inputs(name))
    assert (quick == 1) is (name in READS_FIRST)
    assert positions[-1] > 1


def test_nothing_stays_behind() -> None:
    model = tiny("bert").train()
    kinds = [type(module) for module in model.modules()]
    with ExitStack() as undo:
        quicken(model, "cpu", undo)
        assert any(type(module) is QuickDropout for module in model.modules())
        assert model.config._attn_implementation == "autopeft_short"
        assert all(module.training for module in model.modules())
    assert [type(module) for module in model.modules()] == kinds
    assert model.config._attn_implementation == "sdpa"
    assert not any(module._forward_hooks for module in model.modules())
    assert any(isinstance(module, nn.Dropout) for module in model.modules())


def test_a_head_that_reads_another_position_gets_all_of_them() -> None:
    model = tiny("bert").eval()
    pooler = model.base_model.pooler
    forward = pooler.forward
    pooler.forward = lambda hidden: forward(hidden.flip(1))
    expected = logits(model, inputs("bert"))
    with ExitStack() as undo:
        quicken(model, "cpu", undo)
        assert torch.allclose(logits(model, inputs("bert")), expected, rtol=1e-4, atol=1e-6)
