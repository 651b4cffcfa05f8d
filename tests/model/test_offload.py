from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

from autopeft.memory.live_bytes import REST, Live
from autopeft.model.offload import Host, offloaded
from tests.backbones import inputs, tiny

WIDTH = 64


@pytest.mark.parametrize("name", ["bert", "llama", "gpt2", "t5"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_are_those_without(name: str, checkpointing: bool) -> None:
    model, batch = tiny(name), inputs(name)
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.train()
    weights = [p for p in model.parameters() if p.requires_grad]
    held = {p.untyped_storage()._cdata for p in model.parameters()}

    def loss() -> Tensor:
        out: Tensor = model(**batch).logits.square().sum()
        return out

    def moved() -> Tensor:
        host = Host(held)
        with saved_tensors_hooks(host.pack, host.unpack):
            return loss()

    usual = torch.autograd.grad(loss(), weights, allow_unused=True)
    found = torch.autograd.grad(moved(), weights, allow_unused=True)
    for expected, got in zip(usual, found, strict=True):
        assert (expected is None and got is None) or torch.equal(expected, got)


def test_a_storage_moves_once_and_keeps_its_views() -> None:
    host = Host(set())
    fused = torch.arange(24.0).reshape(4, 6)
    parts = [fused[:, :3], fused[:, 3:], fused[:1].expand(4, 6), fused.t()]
    kept = [host.pack(part) for part in parts]
    back = [host.unpack(each) for each in kept]
    for part, again in zip(parts, back, strict=True):
        assert torch.equal(part, again)
        assert part.stride() == again.stride()
    assert len({again.untyped_storage()._cdata for again in back}) == 1
    assert back[0].untyped_storage()._cdata != fused.untyped_storage()._cdata


def test_a_storage_written_to_in_between_moves_again() -> None:
    host = Host(set())
    tensor = torch.zeros(3)
    before = host.pack(tensor)
    tensor.add_(1)
    after = host.pack(tensor)
    assert host.unpack(before).tolist() == [0, 0, 0]
    assert host.unpack(after).tolist() == [1, 1, 1]


def test_what_stays_is_not_copied() -> None:
    tensor = torch.ones(3)
    host = Host({tensor.untyped_storage()._cdata})
    assert host.pack(tensor) is tensor


def test_a_new_storage_at_an_old_place_is_no_old_one() -> None:
    host, kept = Host(set()), []
    for value in range(50):
        tensor = torch.full((8,), float(value))
        kept.append(host.pack(tensor))
        del tensor
    assert [host.unpack(each)[0].item() for each in kept] == list(range(50))


def test_nothing_is_copied_on_a_cpu() -> None:
    weight = nn.Parameter(torch.ones(WIDTH, WIDTH))
    x = torch.ones(8, WIDTH)
    with offloaded([weight]):
        out = (x @ weight).relu()
    assert out.grad_fn._saved_result.untyped_storage()._cdata == out.untyped_storage()._cdata


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_activations_leave_a_gpu_and_come_back() -> None:
    weights = [nn.Parameter(torch.randn(WIDTH, WIDTH, device="cuda") / 8) for _ in range(12)]
    x = torch.randn(10_000, WIDTH, device="cuda")

    def gradients(move: bool) -> tuple[list[Tensor], int]:
        torch.cuda.reset_peak_memory_stats()
        before, out = torch.cuda.memory_allocated(), x
        with offloaded([x, *weights] if move else []):
            for weight in weights:
                out = (out @ weight).tanh()
        found = list(torch.autograd.grad(out.sum(), weights))
        return found, torch.cuda.max_memory_allocated() - before

    (usual, most), (moved, least) = gradients(False), gradients(True)
    assert all(torch.equal(a, b) for a, b in zip(usual, moved, strict=True))
    assert least < most / 2


def peak(move: bool, layers: int, checkpointing: bool) -> int:
    """Bytes at the worst moment of a step of a stack of linears without biases, on `meta`."""
    live = Live(1, host=False)
    with torch.device("meta"):
        stack = [nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(layers)]
        x = torch.empty(1000, WIDTH)
    weights = [each.weight for each in stack]
    for weight in weights:
        weight.grad = torch.empty_like(weight)
    live.assign("held", [x, *weights, *(w.grad for w in weights if w.grad is not None)])

    def layer(each: nn.Linear, x: Tensor) -> Tensor:
        if checkpointing:
            return checkpoint(lambda x: each(x).tanh(), x, use_reentrant=False)
        return each(x).tanh()

    with live:
        with offloaded([x, *weights] if move else []):
            for each in stack:
                x = layer(each, x)
            loss = x.sum()
        loss.backward()
    return live.at_peak[REST]


@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_peak_does_not_grow_with_depth(checkpointing: bool) -> None:
    shallow, deep = (peak(True, layers, checkpointing) for layers in (6, 12))
    assert deep == shallow
    activation = 4 * 1000 * WIDTH
    assert peak(False, 12, checkpointing) - peak(False, 6, checkpointing) >= 6 * activation
    assert deep <= 6 * activation
