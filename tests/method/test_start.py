from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import peft
import pytest
import torch
from peft.tuners.lora import initialize_lora_eva_weights
from peft.utils.incremental_pca import IncrementalPCA
from torch import Tensor, nn
from transformers import PreTrainedModel

from autopeft.core.config import PeftConfig, Placement
from autopeft.core.errors import AttachError
from autopeft.method.attach import Attached, attach
from autopeft.method.evidence import Directions
from tests.backbones import logits, tiny
from tests.contracts.method import assert_same, examples, fingerprint, placement

LAYERS = (0, 1)
LINEARS = ("q", "k", "v", "o", "up", "down")


def started(model: PreTrainedModel, data: Any, method: str, **options: Any) -> Attached:
    placed = [placement(method, LAYERS, targets=LINEARS, **options)]
    return attach(model, PeftConfig.of(placed), examples=data)


def weights(on: Attached) -> Mapping[str, tuple[nn.Parameter, Any]]:
    """The frozen weight at each site, and which of its outputs are of the role."""
    sites = {site.placed.key: (site.module, site.layer, site.placed.site.at) for site in on.sites}
    return {
        key: (module.get_parameter("weight"), layer.columns(at))
        for key, (module, layer, at) in sites.items()
    }


@pytest.mark.parametrize("architecture", ["bert", "gpt2", "gpt_neox", "bart", "opt", "deberta-v2"])
def test_fisher_is_the_mean_square_of_the_gradients_of_examples(architecture: str) -> None:
    """Also of fused and transposed weights, of flat positions, and of one used twice in a pass."""
    model, data = tiny(architecture), examples(tiny(architecture))
    on = started(model, data, "sparse", select="fisher", r=2, num_samples=2)
    state = on.state_dict()
    frozen = {key: (w.requires_grad_(), columns) for key, (w, columns) in weights(on).items()}
    squares = dict.fromkeys(frozen, torch.zeros(()))
    for example in data[:2]:
        loss = model(**example).loss
        gradients = torch.autograd.grad(loss, [weight for weight, _ in frozen.values()])
        for (key, (_, columns)), gradient in zip(frozen.items(), gradients, strict=True):
            gradient = gradient.T if architecture == "gpt2" else gradient
            own = gradient if columns is None else gradient[columns]
            squares[key] = squares[key] + own.square()
    for key, square in squares.items():
        chosen = square.flatten()[state[f"{key}.index"]]
        assert len(chosen.unique()) > 1
        assert torch.allclose(chosen.sum(), square.flatten().topk(len(chosen)).values.sum())


@pytest.mark.parametrize("form", ["sequential", "parallel"])
@pytest.mark.parametrize("architecture", ["bert", "gpt2", "bart"])
def test_elements_of_an_adapter_are_those_that_matter_most(architecture: str, form: str) -> None:
    """Where the whole adapter, as it was drawn, adds next to nothing."""
    model, data = tiny(architecture), examples(tiny(architecture))
    options = {"form": form, "size": 4, "at": "both", "activation": "gelu", "bias": False}
    snip = {"select": "snip", "num_samples": 2, "density": 0.25}
    placed = [Placement.of("sparse-adapter", LAYERS, {**options, **snip})]
    on = attach(model, PeftConfig.of(placed), examples=data)
    chosen = {site.placed.key: site.tensors for site in on.sites}
    on.detach()
    placed = [Placement.of("adapter", LAYERS, {**options, "scale": 1e-4})]
    whole = attach(model, PeftConfig.of(placed))
    drawn = {
        key.replace("sparse-adapter", "adapter") + f".{name}": tensors[f"{name}.drawn"]
        for key, tensors in chosen.items()
        for name in ("down", "up")
    }
    whole.load_state_dict({f"{name}.weight": tensor for name, tensor in drawn.items()})
    sum(model(**example).loss for example in data[:2]).backward()
    for key, tensors in chosen.items():
        for name in ("down", "up"):
            of = key.replace("sparse-adapter", "adapter") + f".{name}"
            gradient = whole.trainable()[f"{of}.weight"].grad
            scores = (1e4 * gradient * drawn[of]).abs().flatten()
            kept = scores[tensors[f"{name}.index"]]
            assert 4 * len(kept) == len(scores)
            assert torch.allclose(kept.sum(), scores.topk(len(kept)).values.sum(), rtol=1e-3)


def test_what_stands_beside_it_counts_as_it_starts() -> None:
    model, data = tiny("bert"), examples(tiny("bert"))
    own = placement("sparse", LAYERS, select="fisher")
    key = "layers.1.sparse.self.q.index"
    alone = attach(model, PeftConfig.of([own]), examples=data)
    chosen = alone.state_dict()[key]
    alone.detach()
    prefixed = PeftConfig.of([Placement.of("prefix", LAYERS, {"length": 3}), own])
    beside = attach(model, prefixed, examples=data, seed=3)
    assert not torch.equal(chosen, beside.state_dict()[key])


def test_eva_starts_where_peft_does() -> None:
    model, data = tiny("bert"), examples(tiny("bert"))[:1]
    state = started(model, data, "lora", init_lora_weights="eva", r=3).state_dict()
    eva = peft.EvaConfig(rho=1.0, use_label_mask=False)
    names = ["query", "key", "value", "attention.output.dense", "intermediate.dense"]
    config = peft.LoraConfig(
        r=3, init_lora_weights="eva", eva_config=eva, target_modules=[*names, "output.dense"]
    )
    theirs = peft.get_peft_model(tiny("bert"), config)
    text = {"input_ids": data[0]["input_ids"]}
    text["attention_mask"] = torch.ones_like(text["input_ids"])
    initialize_lora_eva_weights(theirs, [text], show_progress_bar=False)
    paths = dict(zip(LINEARS, [f"attention.self.{n}" for n in names[:3]], strict=False))
    paths |= {"o": names[3], "up": names[4], "down": "output.dense"}
    there = dict(theirs.named_parameters())
    for layer in LAYERS:
        for role, path in paths.items():
            site = role if role in ("up", "down") else f"self.{role}"
            key = f"base_model.model.bert.encoder.layer.{layer}.{path}.lora_A.default.weight"
            ours = state[f"layers.{layer}.lora.{site}.A"]
            assert torch.allclose(ours, there[key], atol=1e-4), (layer, role)
            assert not state[f"layers.{layer}.lora.{site}.B"].any()


def test_directions_are_those_of_an_incremental_decomposition() -> None:
    generator = torch.Generator().manual_seed(0)
    scales = torch.logspace(1, -1, 24)
    ours, theirs = Directions(4), IncrementalPCA(8, lowrank=False)
    every: list[Tensor] = []
    for _ in range(6):
        x = torch.randn(11, 24, generator=generator) * scales + 5
        ours.take(x)
        theirs.partial_fit(x.clone())
        every.append(x)
    found = ours.tensor()
    assert torch.allclose(found, theirs.components_[:4].float(), atol=1e-4)
    whole = torch.cat(every)
    right = torch.linalg.svd(whole - whole.mean(0), full_matrices=False)[2][:4]
    assert ((found * right).sum(1).abs() > 0.99).all()


def test_there_are_no_more_directions_than_inputs_vary_in() -> None:
    """The other rows of A stay as they are drawn, and train."""
    model, data = tiny("bert"), examples(tiny("bert"))
    a = started(model, data[:1], "lora", init_lora_weights="eva", r=9).state_dict()
    plain = started(tiny("bert"), (), "lora", r=9).state_dict()
    name = "layers.0.lora.self.q.A"
    assert torch.equal(a[name][6:], plain[name][6:])
    assert torch.allclose(a[name][:6] @ a[name][:6].T, torch.eye(6), atol=1e-4)


@pytest.mark.parametrize("checkpointed", [False, True])
def test_a_start_leaves_the_model_as_it_was(checkpointed: bool) -> None:
    model, data = tiny("bert", hidden_dropout_prob=0.5), examples(tiny("bert"))
    usual = started(model, data, "sparse", select="fisher").state_dict()
    plain = tiny("bert", hidden_dropout_prob=0.5)
    if checkpointed:
        plain.gradient_checkpointing_enable({"use_reentrant": False})
        plain.disable_input_require_grads()
    plain.train()
    before, modes = fingerprint(plain), {m: m.training for m in plain.modules()}
    on = started(plain, data, "sparse", select="fisher")
    assert {module: module.training for module in modes} == modes
    assert all(torch.equal(tensor, usual[name]) for name, tensor in on.state_dict().items())
    assert all(weight.grad is None for weight in plain.parameters())
    on.detach()
    assert_same(before, fingerprint(plain))


def test_without_examples_it_takes_the_state_of_a_training() -> None:
    model, data = tiny("bert"), examples(tiny("bert"))
    config = PeftConfig.of([placement("sparse", LAYERS, select="fisher")])
    before = fingerprint(model)
    with pytest.raises(AttachError, match=r"^sparse on layers 0, 1: starts from training examples"):
        attach(model, config)
    assert_same(before, fingerprint(model))
    on = attach(model, config, examples=data)
    for weight in on.trainable().values():
        weight.data.add_(1)
    expected, state = logits(model, data[0]), on.state_dict()
    on.detach()
    attach(model, config, state=state)
    assert torch.equal(expected, logits(model, data[0]))
