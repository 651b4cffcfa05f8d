from __future__ import annotations

import pytest
import torch

from autopeft.core.errors import AttachError
from autopeft.method.registry import METHODS
from autopeft.method.sites import shape_of
from tests.backbones import ARCHITECTURES, inputs, logits, tiny
from tests.contracts.method import (
    attached,
    merges_or_says_why,
    restores_the_backbone,
    stir,
    trains_all_and_only_its_own,
)
from tests.method.test_contract import ARCHITECTURES as KIT

WITHOUT_BIAS = ("llama", "t5", "phi3", "mistral")
UNROUTED = ("deberta-v2", "mpnet", "falcon", "bloom")
PAIRS = [
    (method, architecture)
    for method in sorted(METHODS)
    for architecture in (*ARCHITECTURES, "phi3", "mistral", "gpt_neox")
    if not (method == "bitfit" and architecture in WITHOUT_BIAS)
]


@pytest.mark.parametrize(("method", "architecture"), PAIRS)
def test_every_method_learns_at_every_site(method: str, architecture: str) -> None:
    model, batch = tiny(architecture), inputs(architecture)
    plain = logits(model, batch)
    on = attached(method, model)
    stir(on)
    trained = logits(model, batch)
    assert not torch.allclose(trained, plain, atol=1e-4)
    trained.square().mean().backward()
    reached = {name: weight.grad is not None for name, weight in on.trainable().items()}
    assert all(reached.values()), reached
    assert all(weight.grad.abs().max() > 0 for weight in on.trainable().values())


@pytest.mark.parametrize(("method", "architecture"), [p for p in PAIRS if p[1] not in KIT])
def test_detaching_restores_every_architecture(method: str, architecture: str) -> None:
    restores_the_backbone(method, architecture)


@pytest.mark.parametrize("architecture", sorted(WITHOUT_BIAS))
def test_a_backbone_without_biases_takes_no_bitfit(architecture: str) -> None:
    with pytest.raises(AttachError, match="has a bias"):
        attached("bitfit", tiny(architecture))


@pytest.mark.parametrize("method", ["adapter", "bitfit", "lora"])
@pytest.mark.parametrize("architecture", UNROUTED)
def test_attention_of_its_own_takes_all_but_prefixes(architecture: str, method: str) -> None:
    restores_the_backbone(method, architecture)
    trains_all_and_only_its_own(method, architecture)


@pytest.mark.parametrize("architecture", UNROUTED)
def test_attention_of_its_own_takes_no_prefix(architecture: str) -> None:
    model = tiny(architecture)
    with pytest.raises(AttachError, match="AttentionInterface, which prefix needs"):
        attached("prefix", model)
    attached("lora", model).detach()


@pytest.mark.parametrize("method", ["lora", "adapter", "bitfit"])
def test_lone_position_embeddings_do_not_disturb_the_input_of_a_sublayer(method: str) -> None:
    model, batch = tiny("deberta-v2"), inputs("deberta-v2")
    on = attached(method, model)
    stir(on)
    together = logits(model, batch)
    alone = logits(model, {name: t[1:2, :6] for name, t in batch.items()})
    assert torch.allclose(together[1:2], alone, atol=1e-5)


def test_a_layer_that_is_run_many_times_counts_once() -> None:
    model = tiny("albert")
    assert len(shape_of(model).layers) == 1
    restores_the_backbone("adapter", "albert")
    merges_or_says_why("lora", "albert")
