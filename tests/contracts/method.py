"""What every PEFT method promises, as checks that run over the registry.

A check takes the name of a method and the name of an architecture and fails by AssertionError.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor
from transformers import PreTrainedModel

from autopeft.core.config import PeftConfig, Placement
from autopeft.core.errors import AttachError
from autopeft.method import Attached, attach, count, shape_of
from autopeft.method.registry import METHODS
from tests.backbones import inputs, logits, tiny


def example(method: str, layers: int, **changes: Any) -> PeftConfig:
    """The method's own example on every layer."""
    options = {**METHODS[method].example, **changes}
    return PeftConfig.of([Placement.of(method, range(layers), options)])


def attached(method: str, model: PreTrainedModel, **options: Any) -> Attached:
    """The method's own example on every layer of `model`."""
    return attach(model, example(method, len(shape_of(model).layers)), **options)


def stir(on: Attached, seed: int = 0) -> None:
    """Moves every trained tensor away from where it starts."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in on.trainable().values():
            weight.add_(torch.randn(weight.shape, generator=generator) * 0.2)


def step(on: Attached, architecture: str) -> None:
    """One step of training on a made-up loss."""
    optimizer = torch.optim.AdamW(on.trainable().values(), lr=0.1)
    logits(on.model.train(), inputs(architecture)).square().mean().backward()
    optimizer.step()
    on.model.eval()


def fingerprint(model: PreTrainedModel) -> dict[str, Any]:
    """Everything that attaching may touch: values, flags, attributes, hooks, attention."""
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    modules = dict(model.named_modules())
    return {
        "bits": {name: t.detach().clone() for name, t in tensors.items()},
        "objects": {name: id(t) for name, t in tensors.items()},
        "flags": {name: t.requires_grad for name, t in tensors.items()},
        "attributes": {name: sorted(vars(module)) for name, module in modules.items()},
        "hooks": {
            name: (len(module._forward_hooks), len(module._forward_pre_hooks))
            for name, module in modules.items()
        },
        "attention": (id(model.config), model.config._attn_implementation),
    }


def assert_same(before: dict[str, Any], after: dict[str, Any]) -> None:
    """Fails unless two fingerprints agree bit for bit."""
    for name, tensor in before["bits"].items():
        assert torch.equal(tensor, after["bits"][name]), f"{name} has changed"
        assert tensor.dtype == after["bits"][name].dtype
    assert {k: v for k, v in before.items() if k != "bits"} == {
        k: v for k, v in after.items() if k != "bits"
    }


def starts_as_promised(method: str, architecture: str) -> None:
    """Output equals the backbone's at the start exactly if the method promises it."""
    model, batch = tiny(architecture).requires_grad_(False), inputs(architecture)
    plain = logits(model, batch)
    started = logits(attached(method, model).model, batch)
    assert torch.equal(plain, started) == METHODS[method].identity_at_start


def counts_what_it_trains(method: str, architecture: str) -> None:
    """`count` is the number of trained elements, and of changed ones where it merges."""
    model = tiny(architecture)
    config, shape = example(method, len(shape_of(model).layers)), shape_of(model)
    on = attach(model, config)
    trained = sum(weight.numel() for weight in on.trainable().values())
    assert count(config, shape).trainable == trained
    if not on.unmergeable():
        assert count(config, shape).changed == _changed_by_merging(on)


def trains_all_and_only_its_own(method: str, architecture: str) -> None:
    """Gradients reach every trained tensor, and none of the backbone's."""
    on = attached(method, tiny(architecture))
    stir(on)
    logits(on.model, inputs(architecture)).square().mean().backward()
    for name, weight in on.trainable().items():
        assert weight.grad is not None, f"{name} is not reached"
        assert weight.grad.abs().max() > 0, f"{name} has no effect"
    assert [name for name, p in on.model.named_parameters() if p.grad is not None] == []


def restores_the_backbone(method: str, architecture: str) -> None:
    """Attaching, training and detaching leave every bit, flag, attribute and hook as it was."""
    model = tiny(architecture)
    before, plain = fingerprint(model), logits(model, inputs(architecture))
    on = attached(method, model)
    step(on, architecture)
    on.detach()
    assert_same(before, fingerprint(model))
    assert torch.equal(plain, logits(model, inputs(architecture)))


def merges_or_says_why(method: str, architecture: str) -> None:
    """Merged and unmerged outputs agree; what does not merge is named and changes nothing."""
    model, batch = tiny(architecture), inputs(architecture)
    before, plain = fingerprint(model), logits(model, batch)
    on = attached(method, model)
    stir(on)
    trained = logits(model, batch)
    if not METHODS[method].merges:
        _refuses_to_merge(on, method)
        assert torch.equal(trained, logits(model, batch))
        return
    on.merge()
    scale = (trained - plain).abs().max()
    assert scale > 0
    assert (logits(model, batch) - trained).abs().max() < 1e-4 * max(float(scale), 1.0)
    after = fingerprint(model)
    assert before["hooks"] == after["hooks"]
    assert before["attributes"] == after["attributes"]


def round_trips(method: str, architecture: str) -> None:
    """The state written to safetensors and loaded into a new attachment gives equal outputs."""
    model, batch = tiny(architecture), inputs(architecture)
    on = attached(method, model)
    stir(on)
    expected, data = logits(model, batch), save(on.state_dict())
    on.detach()
    again = attached(method, model, seed=1)
    again.load_state_dict(load(data))
    assert torch.equal(expected, logits(model, batch))


def saves_nothing_of_the_backbone(method: str, architecture: str) -> None:
    """The state holds the trained tensors and no memory of the backbone."""
    on = attached(method, tiny(architecture))
    own = {p.untyped_storage().data_ptr() for p in on.model.parameters()}
    state = on.state_dict()
    assert state.keys() == on.trainable().keys()
    assert all(t.untyped_storage().data_ptr() not in own for t in state.values())
    assert all(t.is_contiguous() and not t.requires_grad for t in state.values())


CHECKS: tuple[Callable[[str, str], None], ...] = (
    starts_as_promised,
    counts_what_it_trains,
    trains_all_and_only_its_own,
    restores_the_backbone,
    merges_or_says_why,
    round_trips,
    saves_nothing_of_the_backbone,
)


def _changed_by_merging(on: Attached) -> int:
    stir(on)
    before = {name: p.detach().clone() for name, p in on.model.named_parameters()}
    on.merge()
    differing: Tensor = sum(
        ((p != before[name]).sum() for name, p in on.model.named_parameters()),
        start=torch.tensor(0),
    )
    return int(differing)


def _refuses_to_merge(on: Attached, method: str) -> None:
    with pytest.raises(AttachError, match=f"{method} on layers 0"):
        on.merge()
