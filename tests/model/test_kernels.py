from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from autopeft.model.kernels import Kernels

BATCH, HEADS, LENGTH, HEAD = 3, 5, 24, 16
ROWS = BATCH * HEADS * LENGTH
WEIGHTS = ROWS * LENGTH
OUT = ROWS * HEAD
BF16, F32 = torch.bfloat16, torch.float32


def _query(dtype: torch.dtype, head: int = HEAD, heads: int = HEADS) -> Tensor:
    shape = (BATCH, heads, LENGTH, head)
    return torch.empty(shape, dtype=dtype, device="meta", requires_grad=True)


def _mask() -> Tensor:
    return torch.empty(BATCH, 1, LENGTH, LENGTH, dtype=torch.bool, device="meta")


def _kept(device: str, *args: Any, **kwargs: Any) -> dict[int, int]:
    """Bytes of the storages that backward of attention keeps, without query, key and value."""
    inputs = {t.untyped_storage()._cdata for t in args if isinstance(t, Tensor)}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage()._cdata not in inputs:
            kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with Kernels(device, padded=True), saved_tensors_hooks(keep, lambda tensor: tensor):
        F.scaled_dot_product_attention(*args, **kwargs)
    return {key: tensor.untyped_storage().nbytes() for key, tensor in kept.items()}


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_flash_keeps_the_output_and_a_number_a_row(dropout: float) -> None:
    q = _query(BF16)
    kept = sum(_kept("cuda", q, q, q, dropout_p=dropout).values())
    assert 2 * OUT + 4 * ROWS <= kept < 2 * OUT + 4 * ROWS + 100


def test_flash_shares_key_heads_and_pads_odd_heads() -> None:
    q, k = _query(BF16, heads=4), _query(BF16, heads=2)
    shared = sum(_kept("cuda", q, k, k, enable_gqa=True).values())
    assert shared < 2 * OUT + 4 * ROWS
    odd = _query(BF16, head=HEAD - 1)
    assert sum(_kept("cuda", odd, odd, odd).values()) >= 4 * 2 * OUT + 4 * ROWS


@pytest.mark.parametrize("dtype", [BF16, F32])
def test_efficient_keeps_the_mask_as_numbers(dtype: torch.dtype) -> None:
    q, size = _query(dtype), dtype.itemsize
    rows = 4 * BATCH * HEADS * 32  # rounded up to a multiple of 32
    kept = sorted(_kept("cuda", q, q, q, _mask()).values())
    assert kept[-2:] == sorted([size * OUT, size * BATCH * LENGTH * LENGTH])
    assert rows in kept
    assert sum(kept) < size * (OUT + BATCH * LENGTH * LENGTH) + rows + 100


def test_float32_without_a_mask_keeps_no_weights() -> None:
    q = _query(F32)
    assert max(_kept("cuda", q, q, q).values()) == 4 * OUT


@pytest.mark.parametrize("head", [HEAD, HEAD + 1])
def test_misaligned_heads_need_every_weight(head: int) -> None:
    q = _query(F32, head)
    assert (4 * WEIGHTS in _kept("cuda", q, q, q, _mask()).values()) == (head != HEAD)


@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_the_cpu_keeps_what_it_keeps_with_data(dropout: float, device: str) -> None:
    """The same count on the CPU itself, where no rule applies, and on meta tensors."""
    q = torch.ones(BATCH, HEADS, LENGTH, HEAD, device=device, requires_grad=True)
    mask = torch.ones(BATCH, 1, LENGTH, LENGTH, dtype=torch.bool, device=device)
    kept = sorted(_kept("cpu", q, q, q, mask, dropout_p=dropout).values())
    bias = 4 * BATCH * LENGTH * LENGTH
    if dropout:
        assert kept.count(4 * WEIGHTS) >= 2
    else:
        assert kept == sorted([4 * OUT, 4 * ROWS, bias])


def test_dropout_on_cuda_keeps_a_byte_an_element() -> None:
    x = torch.empty(100, device="meta", requires_grad=True)
    for device, size in (("cuda", 100), ("cpu", 400)):
        saved: list[int] = []
        with Kernels(device, padded=True), saved_tensors_hooks(_noted(saved), lambda t: t):
            F.dropout(x, 0.1)
            F.dropout(x, 0.1, training=False)
        assert saved == [size]


def _noted(saved: list[int]) -> Any:
    def note(tensor: Tensor) -> Tensor:
        saved.append(tensor.untyped_storage().nbytes())
        return tensor

    return note


@pytest.mark.parametrize("padded", [True, False])
def test_questions_about_values_are_answered(padded: bool) -> None:
    mask = torch.empty(2, 8, dtype=torch.bool, device="meta")
    with Kernels("cuda", padded):
        assert bool(mask.all()) is not padded
        assert bool(mask.sum() == mask.numel()) is not padded
        assert not torch.any(mask)
        assert mask.all(dim=1).shape == (2,)
        assert torch.zeros(2).any().item() is False


def test_what_checkpointing_computes_again_obeys_the_rules() -> None:
    q = _query(BF16)

    def attend(x: Tensor) -> Tensor:
        return F.dropout(F.scaled_dot_product_attention(x, x, x, dropout_p=0.1), 0.1)

    with Kernels("cuda", padded=False):
        checkpoint(attend, q, use_reentrant=False).sum().backward()
    assert q.grad is not None


def test_rules_end_with_the_block() -> None:
    q = _query(BF16)
    with pytest.raises(ZeroDivisionError), Kernels("cuda", padded=False):
        raise ZeroDivisionError
    assert F.scaled_dot_product_attention(q, q, q).grad_fn is not None
    with pytest.raises(RuntimeError):
        bool(torch.empty((), device="meta"))
