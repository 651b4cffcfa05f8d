from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from autopeft.model.dropout import QuickDropout, dropout_mask
from autopeft.model.short_attention import FIRST_ONLY, LONGEST, short_attention

sdpa = ALL_ATTENTION_FUNCTIONS["sdpa"]


class Attention(nn.Module):
    def __init__(self, groups: int, causal: bool) -> None:
        super().__init__()
        self.num_key_value_groups, self.is_causal = groups, causal


def drawn(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    tensor = torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=dtype)
    return tensor.requires_grad_()


def masks(queries: int, keys: int) -> dict[str, Tensor | None]:
    seen = torch.rand(3, 1, queries, keys, generator=torch.Generator().manual_seed(0)) > 0.4
    seen[..., 0] = True
    added = torch.zeros(3, 1, queries, keys, dtype=torch.float64)
    return {"none": None, "bool": seen, "added": added.masked_fill(~seen, -1e9)}


@pytest.mark.parametrize(
    ("groups", "causal", "mask"), product((1, 2), (False, True), ("none", "bool", "added"))
)
def test_results_and_gradients_are_those_of_pytorch(groups: int, causal: bool, mask: str) -> None:
    module = Attention(groups, causal)
    query, key, value = drawn(3, 4, 7, 8), drawn(3, 4 // groups, 7, 8), drawn(3, 4 // groups, 7, 8)
    results = []
    for attention in (short_attention, sdpa):
        output, _ = attention(module, query, key, value, masks(7, 7)[mask], scaling=0.3)
        gradients = torch.autograd.grad(output, (query, key, value), output.detach().sin())
        results.append((output, *gradients))
    for ours, theirs in zip(*results, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-10, atol=1e-12)


def test_more_keys_than_queries_are_all_seen() -> None:
    module = Attention(1, causal=False)
    query, key, value = drawn(2, 2, 3, 8), drawn(2, 2, 5, 8), drawn(2, 2, 5, 8)
    ours, _ = short_attention(module, query, key, value, None)
    theirs, _ = sdpa(module, query, key, value, None)
    assert torch.allclose(ours, theirs, rtol=1e-10)


@pytest.mark.parametrize("mask", ["none", "bool", "added"])
def test_a_module_that_is_read_at_its_first_position_computes_no_other(mask: str) -> None:
    module = Attention(1, causal=False)
    query, key, value = drawn(3, 4, 7, 8), drawn(3, 4, 7, 8), drawn(3, 4, 7, 8)
    whole, _ = short_attention(module, query, key, value, masks(7, 7)[mask])
    setattr(module, FIRST_ONLY, True)
    first, _ = short_attention(module, query, key, value, masks(7, 7)[mask])
    assert first.shape == whole.shape
    assert torch.allclose(first[:, 0], whole[:, 0], rtol=1e-12)
    assert not first[:, 1:].any()


def test_long_sequences_and_biases_of_positions_go_to_pytorch() -> None:
    module = Attention(1, causal=False)
    long = drawn(1, 1, LONGEST + 1, 4)
    assert torch.equal(
        short_attention(module, long, long, long, None)[0], sdpa(module, long, long, long, None)[0]
    )
    x, bias = drawn(1, 2, 5, 4), drawn(1, 2, 5, 5)
    ours, _ = short_attention(module, x, x, x, None, position_bias=bias)
    assert torch.allclose(ours, sdpa(module, x, x, x, None, position_bias=bias)[0])
    assert not torch.allclose(ours, sdpa(module, x, x, x, None)[0])


def test_dropped_weights_take_part_neither_forward_nor_backward() -> None:
    """With the identity as values the output shows the weights, which sum to one on average."""
    module = Attention(1, causal=False)
    query, key = drawn(64, 4, 16, 16), drawn(64, 4, 16, 16)
    value = torch.eye(16, dtype=torch.float64).expand(64, 4, 16, 16).clone().requires_grad_()
    torch.manual_seed(0)
    weights, _ = short_attention(module, query, key, value, None, dropout=0.25)
    dropped = (weights == 0).double().mean().item()
    assert dropped == pytest.approx(0.25, abs=0.01)
    assert weights.sum(-1).mean().item() == pytest.approx(1, abs=0.01)
    weights.backward(torch.ones_like(weights))
    assert torch.allclose(value.grad[..., 0], weights.detach().transpose(1, 2).sum(2), rtol=1e-9)


def test_gradients_with_dropout_are_those_of_the_function_with_that_mask() -> None:
    module = Attention(1, causal=False)
    inputs = [drawn(2, 2, 4, 4), drawn(2, 2, 4, 4) * 1.1, drawn(2, 2, 4, 4) * 0.9]
    inputs = [x.detach().requires_grad_() for x in inputs]

    def run(*tensors: Tensor) -> Tensor:
        with torch.random.fork_rng():
            torch.manual_seed(3)
            return short_attention(module, *tensors, None, dropout=0.3)[0]

    assert torch.autograd.gradcheck(run, inputs)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.03])
def test_masks_drop_as_often_as_they_should_in_every_place(p: float) -> None:
    torch.manual_seed(0)
    mask = dropout_mask(torch.empty(400_003), p)
    assert set(mask.unique().tolist()) == {0.0, mask.max().item()}
    for start in range(4):
        assert (mask[start::4] == 0).float().mean().item() == pytest.approx(p, abs=0.004)
    assert mask.mean().item() == pytest.approx(1, abs=0.01)
    first, second = mask[::2][:200_000] == 0, mask[1::2][:200_000] == 0
    assert (first & second).float().mean().item() == pytest.approx(p * p, abs=0.004)


def test_dropout_is_off_in_eval_mode_and_repeats_with_the_seed() -> None:
    module, x = QuickDropout(0.3), torch.randn(5, 7, requires_grad=True)
    torch.manual_seed(1)
    first = module(x)
    torch.manual_seed(1)
    assert torch.equal(first, module(x))
    (gradient,) = torch.autograd.grad(first.sum(), x)
    assert torch.equal(gradient == 0, first == 0)
    assert module.eval()(x) is x
