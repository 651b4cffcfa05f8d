from __future__ import annotations

import copy

import pytest
import torch

from autopeft.method.sites import layers_of
from tests.backbones import inputs, logits, tiny
from tests.contracts.method import attached


@pytest.mark.parametrize("architecture", ["bert", "gpt2", "bart", "qwen2", "vit"])
def test_gradients_are_those_of_the_biases(architecture: str) -> None:
    model, batch = tiny(architecture), inputs(architecture)
    unfrozen = copy.deepcopy(model)
    on = attached("bitfit", model)
    logits(model, batch).square().mean().backward()
    logits(unfrozen, batch).square().mean().backward()
    seen = set()
    for index, layer in enumerate(layers_of(unfrozen)):
        for at in (*layer.linears, *layer.norms):
            offset = on.trainable().get(f"layers.{index}.bitfit.{at}.bias")
            bias = layer.module(at).bias if hasattr(layer.module(at), "bias") else None
            assert (offset is None) == (bias is None)
            if offset is not None:
                expected = bias.grad[layer.columns(at) or slice(None)]
                tolerance = 1e-5 * float(expected.abs().max()) + 1e-8
                assert torch.allclose(offset.grad, expected, atol=tolerance)
                seen.add(at)
    assert seen


def test_one_step_moves_as_training_the_biases_does() -> None:
    model, batch = tiny("bert"), inputs("bert")
    unfrozen = copy.deepcopy(model)
    on = attached("bitfit", model)
    own = [layer.module(at).bias for layer in layers_of(unfrozen) for at in layer.linears]
    own += [norm.bias for layer in layers_of(unfrozen) for norm in layer.norms.values()]
    for net, parameters in ((model, list(on.trainable().values())), (unfrozen, own)):
        optimizer = torch.optim.SGD(parameters, lr=1.0)
        logits(net, batch).square().mean().backward()
        optimizer.step()
    on.merge()
    moved = dict(model.named_parameters())
    for name, parameter in unfrozen.named_parameters():
        assert torch.allclose(parameter, moved[name], atol=1e-6), name
