"""What the kernels of a device allocate, for operations on meta tensors.

Without data a composite operation takes the path of no device: attention would keep every weight
and dropout a mask of floats. These rules follow the choices that PyTorch makes on a CUDA device of
compute capability 8.0 or newer and on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

_aten = torch.ops.aten
_FLASH_HEAD = 256


class Kernels(TorchFunctionMode):
    """Inside `with kernels:` meta tensors are treated as `device` treats real ones.

    Questions about values, which models ask to find out whether a batch is padded, are answered
    by `padded`.
    """

    def __init__(self, device: str, padded: bool) -> None:
        super().__init__()
        self._answers: dict[Any, bool] = {
            torch.Tensor.all: not padded,
            torch.all: not padded,
            torch.Tensor.any: False,
            torch.any: False,
            torch.Tensor.__bool__: not padded,
        }
        self._rules: dict[Any, Callable[..., Any]] = {
            torch.Tensor.backward: self._backward,
            torch.Tensor.__getitem__: _item,
            torch.unique_consecutive: _one,
            torch._grouped_mm: _grouped_mm,
        }
        if device == "cuda":
            self._rules[F.scaled_dot_product_attention] = _attention_on_cuda
            self._rules[F.dropout] = _dropout_on_cuda
        else:
            self._rules[F.scaled_dot_product_attention] = _attention_on_cpu

    def __torch_function__(
        self,
        func: Any,
        types: Iterable[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func in self._answers and len(args) == 1 and not kwargs and args[0].is_meta:
            return self._answers[func]
        rule = self._rules.get(func)
        if rule is None or not (args and args[0].is_meta):
            return func(*args, **kwargs)
        return rule(*args, **kwargs)

    def _backward(
        self, loss: Tensor, inputs: Sequence[Tensor] | None = None, **_options: Any
    ) -> None:
        """Asks the engine directly, since `torch.autograd.backward` would suspend the rules.

        What checkpointing computes again in backward obeys them too.
        """
        with self:
            wanted = tuple(inputs or ())
            engine = torch.autograd.Variable._execution_engine
            engine.run_backward((loss,), (torch.ones_like(loss),), False, False, wanted, True, True)


def _item(tensor: Tensor, index: Any) -> Tensor:
    """`tensor[index]`; of a mask (rows, positions) one of each row, as a text has one end."""
    mask = index[0] if isinstance(index, tuple) else index
    if isinstance(mask, Tensor) and mask.is_meta and mask.dtype == torch.bool and mask.dim() == 2:
        return tensor[:, 0].clone()
    return tensor[index]


def _one(tensor: Tensor, **_options: Any) -> Tensor:
    """Values that are all the same, of which `unique_consecutive` leaves one."""
    return tensor.new_empty(1)


def _grouped_mm(input: Tensor, weight: Tensor, **_options: Any) -> Tensor:
    """Each row times the matrix of its group: as much as all of them times one matrix."""
    return input @ weight[0]


def _dropout_on_cuda(
    input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Tensor:
    """The fused kernel, which keeps a mask of one byte an element."""
    if not training or p in (0.0, 1.0) or inplace:
        return F.dropout(input, p, training, inplace)
    return torch.native_dropout(input, p, True)[0]


def _attention_on_cuda(*args: Any, **kwargs: Any) -> Tensor:
    """`scaled_dot_product_attention`: flash, else memory-efficient, else plain."""
    call = _Attention(*args, **kwargs)
    if call.attn_mask is None and call.flash_fits():
        return call.flash()
    return call.efficient() if call.efficient_fits() else call.plain()


def _attention_on_cpu(*args: Any, **kwargs: Any) -> Tensor:
    """`scaled_dot_product_attention`: flash, else plain."""
    call = _Attention(*args, **kwargs)
    return call.flash_on_cpu() if call.flash_fits_cpu() else call.plain()


@dataclass(frozen=True)
class _Attention:
    """The arguments of `scaled_dot_product_attention`, in its order.

    Attributes:
        query: (batch, heads, queries, head).
        key: (batch, key heads, keys, head).
        value: (batch, key heads, keys, value head).
        attn_mask: broadcastable to (batch, heads, queries, keys), boolean or added.
        dropout_p: of the attention weights.
        is_causal: whether later keys are hidden.
        scale: None for one over the root of the head size.
        enable_gqa: whether several query heads share a key head.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    attn_mask: Tensor | None = None
    dropout_p: float = 0.0
    is_causal: bool = False
    scale: float | None = None
    enable_gqa: bool = False

    def plain(self) -> Tensor:
        """Every weight is kept for backward."""
        out: Tensor = _aten._scaled_dot_product_attention_math(
            self.query,
            self.key,
            self.value,
            self._bias(),
            self.dropout_p,
            self.is_causal,
            scale=self.scale,
            enable_gqa=self.enable_gqa,
        )[0]
        return out

    def flash_fits(self) -> bool:
        """Half precision and equal heads of a size that the kernel has."""
        half = self.query.dtype in (torch.float16, torch.bfloat16)
        return half and self.query.shape[-1] == self.value.shape[-1] <= _FLASH_HEAD

    def flash(self) -> Tensor:
        """Heads are padded to a multiple of eight elements."""
        head = self.query.shape[-1]
        if head % 8:
            return self._padded(-head % 8).flash()[..., :head]
        out: Tensor = _aten._scaled_dot_product_flash_attention(
            self.query, self.key, self.value, self.dropout_p, self.is_causal, scale=self.scale
        )[0]
        return out

    def efficient_fits(self) -> bool:
        """As many key as query heads, of a size aligned to 16 bytes."""
        repeats = self.enable_gqa and self.query.shape[1] != self.key.shape[1]
        alignment = 16 // self.query.element_size()
        aligned = not (self.query.shape[-1] % alignment or self.value.shape[-1] % alignment)
        return aligned and not repeats

    def efficient(self) -> Tensor:
        """The bias is expanded to every head; rows not of a multiple of eight are copied."""
        query, key, bias = self.query, self.key, self._bias()
        if bias is not None:
            keys = bias.shape[-1]
            if keys % 8:
                bias = F.pad(bias, (0, -keys % 8))[..., :keys]
            bias = bias.expand(*query.shape[:3], key.shape[2])
        trained = any(tensor.requires_grad for tensor in (query, key, self.value))
        out: Tensor = _aten._scaled_dot_product_efficient_attention(
            query,
            key,
            self.value,
            bias,
            trained and torch.is_grad_enabled(),
            self.dropout_p,
            self.is_causal,
            scale=self.scale,
        )[0]
        return out

    def flash_fits_cpu(self) -> bool:
        """Neither dropped weights nor a trained mask, and equal heads."""
        trained = self.attn_mask is not None and self.attn_mask.requires_grad
        equal = self.query.shape[-1] == self.value.shape[-1]
        return not self.dropout_p and not trained and equal

    def flash_on_cpu(self) -> Tensor:
        """The CPU's kernel, which takes masks."""
        out: Tensor = _aten._scaled_dot_product_flash_attention_for_cpu(
            self.query,
            self.key,
            self.value,
            self.dropout_p,
            self.is_causal,
            attn_mask=self._bias(),
            scale=self.scale,
        )[0]
        return out

    def _bias(self) -> Tensor | None:
        """The mask as numbers to add: a new tensor at every call where it is boolean."""
        mask = self.attn_mask
        if mask is None or mask.dtype != torch.bool:
            return mask
        zero = torch.zeros((), dtype=self.query.dtype, device=mask.device)
        return torch.where(mask.logical_not(), float("-inf"), zero)

    def _padded(self, missing: int) -> _Attention:
        scale = self.query.shape[-1] ** -0.5 if self.scale is None else self.scale
        query, key, value = (F.pad(x, (0, missing)) for x in (self.query, self.key, self.value))
        return replace(self, query=query, key=key, value=value, scale=scale)
