"""What every PEFT method promises, as checks that run over the registry.

A check takes the name of a case, which is a method or a variant of one, and the name of an
architecture, and fails by AssertionError.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor, nn
from transformers import PreTrainedModel

from autopeft.core.config import PeftConfig, Placement
from autopeft.core.declaration import GATES
from autopeft.core.errors import AttachError
from autopeft.core.size import size_option
from autopeft.method import attention, beside, head, hook
from autopeft.method.attach import HOLDER, Attached, attach
from autopeft.method.count import count
from autopeft.method.member import Member, draw
from autopeft.method.method import Method
from autopeft.method.pack import Pack
from autopeft.method.registry import METHODS, build
from autopeft.method.sites import shape_of
from tests.backbones import inputs, logits, tiny

GATED: Mapping[str, Any] = {"use_gating": True}
ADAPTIVE: Mapping[str, Any] = {"adaptive": True}
VARIANTS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "bitfit-queries": ("bitfit", {"targets": ("q", "up")}),
    "lora-dylora": ("lora", {"use_dylora": True, "r": 4}),
    "lora-pissa": ("lora", {"init_lora_weights": "pissa", "lora_alpha": 5.0}),
    "lora-fa": ("lora", {"freeze_a": True, "use_rslora": True}),
    "lora-plus": ("lora", {"loraplus_lr_ratio": 16.0, "init_lora_weights": "gaussian"}),
    "lora-eva-fa": ("lora", {"init_lora_weights": "eva", "freeze_a": True}),
    "sparse-adapter-snip": ("sparse-adapter", {"select": "snip", "num_samples": 2}),
    "sparse-fisher": ("sparse", {"select": "fisher", "num_samples": 2}),
    "sparse-smallest": ("sparse", {"select": "smallest"}),
    "adapter-gated": ("adapter", GATED),
    "lora-gated": ("lora", GATED),
    "prefix-gated": ("prefix", GATED),
    "prefix-adaptive": ("prefix", ADAPTIVE),
    "prefix-adaptive-gated": ("prefix", {**ADAPTIVE, **GATED, "prefix_projection": True}),
    "prompt-deep": ("prompt", {"deep": True}),
    "prompt-network": ("prompt", {"encoder_reparameterization_type": "mlp"}),
    "tiny-attention-parallel": ("tiny-attention", {"form": "parallel", "num_heads": 1}),
    "prefix-network": ("prefix", {"prefix_projection": True, "encoder_hidden_size": 6}),
}
"""Methods with options beside those of their examples, by name of the case."""


def kind(case: str) -> type[Method]:
    """The method of a case."""
    return METHODS[VARIANTS[case][0] if case in VARIANTS else case]


def placement(case: str, layers: Iterable[int], **changes: Any) -> Placement:
    """The example of a case."""
    method, options = VARIANTS.get(case, (case, {}))
    return Placement.of(method, layers, {**METHODS[method].example, **options, **changes})


def example(case: str, layers: int, **changes: Any) -> PeftConfig:
    """The example of a case on every layer."""
    return PeftConfig.of([placement(case, range(layers), **changes)])


def examples(model: PreTrainedModel, seed: int = 0) -> list[dict[str, Tensor]]:
    """Training examples of a small model, for methods that start from them."""
    generator = torch.Generator().manual_seed(seed)
    if model.main_input_name == "pixel_values":
        pixels = torch.randn(3, 1, 3, 16, 16, generator=generator)
        return [{"pixel_values": each, "labels": torch.tensor([1])} for each in pixels]
    given = []
    for ids in torch.randint(5, 99, (3, 1, 7), generator=generator):
        classifies = "Classification" in type(model).__name__
        given.append({"input_ids": ids, "labels": torch.tensor([1]) if classifies else ids})
    return given


def attached(method: str, model: PreTrainedModel, data: int = 0, **options: Any) -> Attached:
    """The method's own example on every layer of `model`; other data are other examples."""
    config = example(method, len(shape_of(model).layers))
    return attach(model, config, examples=examples(model, data), **options)


def is_gated(case: str) -> bool:
    """Whether its example has a gate."""
    return any(map(dict(placement(case, [0]).options).get, GATES))


def stir(on: Attached | Member, seed: int = 0) -> None:
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
    assert torch.equal(plain, started) == kind(method).identity_at_start


def counts_what_it_trains(method: str, architecture: str) -> None:
    """`count` is the number of trained elements, and of changed ones where it merges."""
    model = tiny(architecture)
    config, shape = example(method, len(shape_of(model).layers)), shape_of(model)
    on = attached(method, model)
    trained = sum(weight.numel() for weight in on.trainable().values())
    assert count(config, shape).trainable == trained
    assert count(config, shape).stored == sum(t.numel() for t in on.state_dict().values())
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
    assert [name for name, p in own_parameters(on.model) if p.grad is not None] == []


def own_parameters(model: PreTrainedModel) -> list[tuple[str, nn.Parameter]]:
    """Those of the backbone, without what is attached."""
    return [(n, p) for n, p in model.named_parameters() if not n.startswith(f"{HOLDER}.")]


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
    if not kind(method).merges or is_gated(method):
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
    again = attached(method, model, data=1, seed=1)
    again.load_state_dict(load(data))
    assert torch.equal(expected, logits(model, batch))


def saves_nothing_of_the_backbone(method: str, architecture: str) -> None:
    """The state holds the trained tensors and no memory of the backbone."""
    on = attached(method, tiny(architecture))
    storages = {p.untyped_storage().data_ptr() for _, p in own_parameters(on.model)}
    state = on.state_dict()
    assert state.keys() == on.trainable().keys() | _kept(on)
    assert all(t.untyped_storage().data_ptr() not in storages for t in state.values())
    assert all(t.is_contiguous() and not t.requires_grad for t in state.values())


SIZES = (2, 2, 2, 3, 1)
"""Rows of the members of `crew`; twins have equally many and are computed together."""


OTHERS = ("lora", "dora", "adapter", "ia3", "prefix", "prompt", "ladder", "bitfit")
"""Methods beside which every method is packed: one of each way into a forward pass."""


def crew(method: str, model: PreTrainedModel) -> list[Member]:
    """Members of all sorts: twins, other sizes, other factors, other layers, other methods."""
    layers = range(len(shape_of(model).layers))
    mine = placement(method, layers)
    usual = dict(mine.options)
    scaled = {name: 1.5 * v if isinstance(v, float) else v for name, v in usual.items()}
    size = size_option(mine.method)
    sized = {name: 2 * v if name == size else v for name, v in usual.items()}
    others = [placement(n, layers) for n in OTHERS if METHODS[n] is not kind(method)]
    fitting = [other for other in others if _fits(other, model)]
    chosen_by_member = [
        [mine],
        [mine, *fitting],
        [Placement.of(mine.method, layers, scaled)],
        [Placement.of(mine.method, layers[-1:], sized)],
        fitting,
    ]
    members = [
        draw(model, PeftConfig.of(chosen), seed=i) for i, chosen in enumerate(chosen_by_member)
    ]
    for seed, member in enumerate(members):
        stir(member, seed)
        for places in member.state_dict().values():
            if not places.is_floating_point():  # as if data had said so
                places.copy_(torch.arange(len(places)))
    return members


@dataclass(frozen=True)
class Outcome:
    """What a member's rows gave: logits, a loss, and the gradients of its tensors by name."""

    logits: Tensor
    loss: Tensor
    gradients: Mapping[str, Tensor]


def outcomes(pack: Pack, batch: Mapping[str, Tensor], sizes: Sequence[int]) -> list[Outcome]:
    """Of one forward and backward pass, a made-up loss for each member."""
    for member in pack.members:
        for weight in member.trainable().values():
            weight.grad = None
    pack.split(sizes)
    parts = logits(pack.model, dict(batch)).split(list(sizes))
    losses = [part.square().mean() if len(part) else part.sum() for part in parts]
    torch.stack(losses).sum().backward()
    gradients = [
        {n: w.grad.clone() for n, w in member.trainable().items() if w.grad is not None}
        for member in pack.members
    ]
    parted = zip(parts, losses, gradients, strict=True)
    return [Outcome(part.detach(), loss.detach(), gradient) for part, loss, gradient in parted]


def alone(
    model: PreTrainedModel,
    members: Sequence[Member],
    batch: Mapping[str, Tensor],
    sizes: Sequence[int],
) -> list[Outcome]:
    """The outcomes of members one after the other, each on its rows."""
    results, start = [], 0
    for member, size in zip(members, sizes, strict=True):
        pack = Pack(model, member.modules_to_save)
        pack.join(member)
        rows = {name: tensor[start : start + size] for name, tensor in batch.items()}
        results += outcomes(pack, rows, [size])
        pack.close()
        start += size
    return results


def together(
    model: PreTrainedModel,
    members: Sequence[Member],
    batch: Mapping[str, Tensor],
    sizes: Sequence[int],
) -> list[Outcome]:
    """The outcomes of members side by side."""
    pack = Pack(model, members[0].modules_to_save)
    try:
        for member in members:
            pack.join(member)
        return outcomes(pack, batch, sizes)
    finally:
        pack.close()


def assert_alike(
    ones: Sequence[Outcome], others: Sequence[Outcome], tolerance: float, floor: float = 1.0
) -> None:
    """Fails unless logits, losses and gradients agree.

    Args:
        ones: of some members.
        others: of the same members.
        tolerance: relative to the largest number of a tensor.
        floor: share of the largest gradient of a member below which a tensor's largest counts for
            that much, since gradients that vanish are nothing but rounding errors.
    """
    for one, other in zip(ones, others, strict=True):
        _assert_close("logits", one.logits, other.logits, tolerance)
        _assert_close("loss", one.loss, other.loss, tolerance)
        assert one.gradients.keys() == other.gradients.keys()
        largest = max((float(g.abs().max()) for g in one.gradients.values()), default=0.0)
        for name, gradient in one.gradients.items():
            _assert_close(name, gradient, other.gradients[name], tolerance, floor * largest)


def _in_dtype_of_input(softmax, x: Tensor, dim: int, **options: object) -> Tensor:
    """Softmax without the dtype that is asked for."""
    return softmax(x, dim=dim)


@contextmanager
def float64(model: PreTrainedModel, members: Sequence[Member]) -> Iterator[None]:
    """Model and members compute in float64, whose rounding errors hide nothing.

    So does the softmax of eager attention, which some architectures ask for in float32.
    """
    softmax = torch.nn.functional.softmax
    model.double()
    for member in members:
        for weight in member.trainable().values():
            weight.data = weight.data.double()
        for frozen in (each for site in member.sites for each in site.frozen.values()):
            if frozen.is_floating_point():
                frozen.data = frozen.data.double()
    with pytest.MonkeyPatch.context() as patch:
        for module in (attention, beside, head, hook):
            patch.setattr(module, "widened", lambda x: x)
        wide = partial(_in_dtype_of_input, softmax)
        patch.setattr(torch.nn.functional, "softmax", wide)
        yield


def packs_as_if_alone(method: str, architecture: str) -> None:
    """Outcomes beside other members are those alone."""
    model = tiny(architecture).train(not _is_random(method))
    members, batch = crew(method, model), inputs(architecture, rows=sum(SIZES))
    assert_equal_in_float64(model, members, batch, SIZES)


def assert_equal_in_float64(
    model: PreTrainedModel,
    members: Sequence[Member],
    batch: Mapping[str, Tensor],
    sizes: Sequence[int],
) -> None:
    """Fails unless members side by side give what they give one after the other."""
    with float64(model, members):
        batch = {n: t.double() if t.is_floating_point() else t for n, t in batch.items()}
        single = alone(model, members, batch, sizes)
        assert_alike(single, together(model, members, batch, sizes), 1e-10, floor=1e-3)


def keeps_invalid_numbers_to_itself(method: str, architecture: str) -> None:
    """The outcomes of other members are the same beside one whose tensors are not numbers."""
    model = tiny(architecture).train(not _is_random(method))
    members, batch = crew(method, model), inputs(architecture, rows=sum(SIZES))
    sound = together(model, members, batch, SIZES)
    with torch.no_grad():
        for weight in members[0].trainable().values():
            weight.fill_(float("nan"))
    ill, *others = together(model, members, batch, SIZES)
    assert not ill.logits.isfinite().any()
    assert_alike(sound[1:], others, 1e-5)


def leaves_without_a_trace(method: str, architecture: str) -> None:
    """Members come and go: the others' outcomes stay, and so does, in the end, the backbone."""
    model = tiny(architecture)
    before = fingerprint(model)
    members, batch = crew(method, model), inputs(architecture, rows=sum(SIZES))
    first, second, *_ = single = alone(model, members, batch, SIZES)
    pack = Pack(model)
    for member in members:
        pack.join(member)
    for member in members[2:]:
        pack.leave(member)
    pair = {name: tensor[: sum(SIZES[:2])] for name, tensor in batch.items()}
    assert_alike([first, second], outcomes(pack, pair, SIZES[:2]), 1e-5)
    for member in members[2:]:
        pack.join(member)
    assert_alike(single, outcomes(pack, batch, SIZES), 1e-5)
    pack.close()
    assert_same(before, fingerprint(model))


CHECKS: tuple[Callable[[str, str], None], ...] = (
    starts_as_promised,
    counts_what_it_trains,
    trains_all_and_only_its_own,
    restores_the_backbone,
    merges_or_says_why,
    round_trips,
    saves_nothing_of_the_backbone,
    packs_as_if_alone,
    keeps_invalid_numbers_to_itself,
    leaves_without_a_trace,
)


def _kept(on: Attached) -> set[str]:
    """The tensors that start from data."""
    sites = [site.placed for site in on.sites]
    return {placed.name(w) for placed in sites for w in placed.site.weights if w.from_data}


def _is_random(case: str) -> bool:
    return build(placement(case, [0])).random_in_training


def _fits(placement: Placement, model: PreTrainedModel) -> bool:
    try:
        count(PeftConfig.of([placement]), shape_of(model))
    except AttachError:
        return False
    return True


def _assert_close(
    name: str, one: Tensor, other: Tensor, tolerance: float, scale: float = 0.0
) -> None:
    scale = max(float(one.abs().max()), scale)
    worst = float((one - other).abs().max())
    assert worst <= tolerance * scale, f"{name}: {worst} off, of {scale}"


def _changed_by_merging(on: Attached) -> int:
    stir(on)
    before = {name: p.detach().clone() for name, p in own_parameters(on.model)}
    on.merge()
    differing: Tensor = sum(
        ((p != before[name]).sum() for name, p in own_parameters(on.model)),
        start=torch.tensor(0),
    )
    return int(differing)


def _refuses_to_merge(on: Attached, method: str) -> None:
    name = placement(method, [0]).method
    with pytest.raises(AttachError, match=f"{name} on layers 0"):
        on.merge()
