"""Gradients before training, against those of the backbone's own weights."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from autopeft.core.config import PeftConfig, Placement
from autopeft.core.errors import AttachError
from autopeft.method.member import draw
from autopeft.train.trainer import N_PROBED, Trainer
from tests.minilm import exact

LAYERS, BATCH = (2, 5), 16
BITFIT = PeftConfig.of(
    [Placement.of("bitfit", LAYERS, {})], {"batch_size": BATCH}, {"dtype": "float32"}
)


def own_gradients(trainer: Trainer, config: PeftConfig, name: str) -> dict[str, list[torch.Tensor]]:
    """Of each batch, with respect to parameters of the backbone whose path ends with `name`."""
    backbone, split = trainer._backbone(config), trainer._splits["train"]
    owned = {n: p for n, p in backbone.model.named_parameters() if n.endswith(name)}
    found: dict[str, list[torch.Tensor]] = {n: [] for n in owned}
    needed = [p.requires_grad for p in owned.values()]
    try:
        for parameter in owned.values():
            parameter.requires_grad_(True)
        for rows in torch.arange(N_PROBED).split(BATCH):
            batch = split.batch(rows, torch.device("cpu"))
            loss = F.cross_entropy(backbone.model(**batch.inputs).logits, batch.labels)
            gradients = torch.autograd.grad(loss, list(owned.values()), allow_unused=True)
            for n, gradient in zip(owned, gradients, strict=True):
                found[n].append(torch.zeros(()) if gradient is None else gradient)
    finally:
        for parameter, before in zip(owned.values(), needed, strict=True):
            parameter.requires_grad_(before)
    return found


def test_lora_feels_the_gradient_of_the_weight_through_its_first_matrix(still: Trainer) -> None:
    """With B = 0: dL/dA = 0 and dL/dB = s (dL/dW) A^T."""
    config = exact(LAYERS, r=4)
    found = still.squared_gradients(config)
    (placement,) = config.placements
    member = draw(still._backbone(config).model, config).trainable()
    weights = own_gradients(still, config, ".weight")
    for layer in range(6):
        expected = 0.0
        for role, theirs in (("q", "query"), ("v", "value")) if layer in LAYERS else ():
            path = f"bert.encoder.layer.{layer}.attention.self.{theirs}.weight"
            a = member[f"layers.{layer}.lora.self.{role}.A"].detach()
            scale = (dict(placement.options)["lora_alpha"] or 2 * 4) / 4
            squares = [float((scale * g @ a.T).square().sum()) for g in weights[path]]
            expected += sum(squares) / len(squares)
        assert found[layer] == pytest.approx(expected, rel=1e-3)
    assert min(found[layer] for layer in LAYERS) > 0


def test_bitfit_feels_the_gradient_of_the_biases(still: Trainer) -> None:
    found, biases = still.squared_gradients(BITFIT), own_gradients(still, BITFIT, ".bias")
    for layer in LAYERS:
        own = [gs for n, gs in biases.items() if f"bert.encoder.layer.{layer}." in n]
        batches = list(zip(*own, strict=True))
        expected = sum(float(g.square().sum()) for batch in batches for g in batch) / len(batches)
        assert found[layer] == pytest.approx(expected, rel=1e-3)
    assert [found[layer] for layer in range(6) if layer not in LAYERS] == [0.0] * 4


def test_the_backbone_is_left_alone(still: Trainer) -> None:
    model = still._backbone(BITFIT).model
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert still.squared_gradients(BITFIT) == still.squared_gradients(BITFIT)
    after = model.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    assert all(parameter.grad is None for parameter in model.parameters())
    missing = PeftConfig.of([Placement.of("bitfit", (17,), {})])
    with pytest.raises(AttachError):
        still.squared_gradients(missing)
