from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from autopeft.memory.replay import replay

Function = Callable[[Tensor], Any]


class _Replaying(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return replay(func, args, kwargs or {})


FUNCTIONS: dict[str, Function] = {
    "promotes": lambda x: (x * 2, x * torch.empty(6, device="meta", dtype=torch.float64)),
    "compares": lambda x: (x > 1, x.long() + 1, x.long() + 1.0),
    "views": lambda x: (x.t(), x[1:, ::2], x.view(-1), x.split(2), x.unsqueeze(0).expand(3, 4, 6)),
    "in place": lambda x: (x.add_(1), x.mul_(x), x.unsqueeze_(0)),
    "many results": lambda x: (
        x.max(dim=1),
        torch.ops.aten.native_layer_norm(x, [6], None, None, 1e-5),
    ),
    "keeps strides": lambda x: (x.t().exp(), x.t().contiguous(), x.t() @ x),
    "lists": lambda x: (torch._foreach_mul([x, x.t()], 2), torch._foreach_add_([x], 1)),
    "by keyword": lambda x: (
        x.sum(dim=0, keepdim=True),
        x.sum(dtype=torch.float64),
        x.to(torch.half),
    ),
    "factories": lambda x: (torch.arange(5, device="meta"), torch.zeros_like(x), x.new_empty(2, 3)),
    "layers": lambda x: (F.gelu(x), F.softmax(x, -1), F.linear(x, x), F.dropout(x, 0.5)),
}


def _flat(result: Any) -> list[Tensor]:
    if isinstance(result, Tensor):
        return [result]
    return [t for item in result or () for t in _flat(item)]


def _described(function: Function) -> list[Any]:
    """Geometry of every result, and which tensors share a storage."""
    x = torch.empty(4, 6, device="meta")
    tensors = [x, *_flat(function(x))]
    storages = [t.untyped_storage()._cdata for t in tensors]
    return [
        (t.shape, t.stride(), t.dtype, t.untyped_storage().nbytes(), storages.index(s))
        for t, s in zip(tensors, storages, strict=True)
    ]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_replayed_results_are_those_of_the_operation(name: str) -> None:
    expected = _described(FUNCTIONS[name])
    for _ in range(3):
        with _Replaying():
            assert _described(FUNCTIONS[name]) == expected


def test_other_types_of_equal_values_are_other_arguments() -> None:
    x = torch.empty(3, device="meta", dtype=torch.int64)
    with _Replaying():
        assert [(x + one).dtype for one in (1, 1.0, True, 1)] == [
            torch.int64,
            torch.float32,
            torch.int64,
            torch.int64,
        ]


def test_gradients_flow_through_replayed_operations() -> None:
    for _ in range(2):
        x = torch.empty(4, 6, device="meta", requires_grad=True)
        with _Replaying():
            F.gelu(x @ x.t()).sum().backward()
        assert x.grad is not None
        assert x.grad.shape == x.shape


def test_tensors_with_data_are_computed() -> None:
    with _Replaying():
        first, second = (torch.full((2,), v) + 1 for v in (1.0, 5.0))
    assert (first.tolist(), second.tolist()) == ([2.0, 2.0], [6.0, 6.0])
