"""Backbones whose linears bitsandbytes holds in 4 or 8 bits, on the meta device."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import bitsandbytes as bnb
import torch
from bitsandbytes.autograd._functions import MatMul8bitFp
from bitsandbytes.functional import QuantState
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.integrations import replace_with_bnb_linear

from autopeft.model.precision import in_bits, spared

_BLOCK = 64
_BLOCK_OF_SCALES = 256
_LEVELS_4BIT = 16
_LEVELS_8BIT = 256
_ops = torch.ops.bitsandbytes


class _HostLinear8bit(bnb.nn.Linear8bitLt):
    """Multiplies as a CPU does in training: with the weights brought back to the input's type."""

    def forward(self, x: Tensor) -> Tensor:
        if self.weight.CB is not None:
            self.init_8bit_state()
        return MatMul8bitFp.apply(x, self.weight, None, self.bias, self.state)


def quantize(model: PreTrainedModel, kind: str, keep: Sequence[str], device: str) -> None:
    """Replaces the linears of a meta model by those that loading it in 4 or 8 bits makes.

    On CUDA, the few columns that `int8` multiplies in 16 bits depend on data and are left out.

    Args:
        model: changed in place.
        kind: `nf4` (with quantized scales) or `int8`.
        keep: paths of modules that stay as they are beside those that are `spared`.
        device: `cuda` or `cpu`, which multiply 8-bit weights differently.
    """
    dtype = model.dtype
    settings = in_bits(kind, dtype, threshold=0.0)
    replace_with_bnb_linear(model, spared(model, keep), settings)
    for module in model.modules():
        if isinstance(module, bnb.nn.Linear4bit):
            _pack_4bit(module, dtype)
        elif isinstance(module, bnb.nn.Linear8bitLt):
            _pack_8bit(module, dtype)
            if device == "cpu":
                module.__class__ = _HostLinear8bit


def states(model: nn.Module) -> Iterator[Tensor]:
    """The tensors beside parameters and buffers that quantized linears hold."""
    for module in model.modules():
        if isinstance(module, bnb.nn.Linear4bit):
            state = module.weight.quant_state
            yield from (state.absmax, state.code, state.offset)
            yield from (state.state2.absmax, state.state2.code)
        elif isinstance(module, bnb.nn.Linear8bitLt):
            held = (module.weight.CB, module.weight.SCB, module.state.CB, module.state.SCB)
            yield from (tensor for tensor in held if tensor is not None)


def expansions(device: str) -> Mapping[Any, Callable[..., Any]]:
    """Functions for `Live.expand` that allocate what the kernels on `device` do."""
    return _EXPANSIONS[device]


@contextmanager
def unlogged() -> Iterator[None]:
    """Without the warnings about casts that bitsandbytes writes at every multiplication."""
    logger = logging.getLogger("bitsandbytes")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _pack_4bit(linear: Any, dtype: torch.dtype) -> None:
    """Gives a linear of bitsandbytes its packed weight, scales and scales of scales."""
    shape = linear.weight.shape
    blocks = -(-shape.numel() // _BLOCK)
    scales = QuantState(
        absmax=_empty(-(-blocks // _BLOCK_OF_SCALES), torch.float32),
        code=_empty(_LEVELS_8BIT, torch.float32),
        blocksize=_BLOCK_OF_SCALES,
        dtype=torch.float32,
    )
    state = QuantState(
        absmax=_empty(blocks, torch.uint8),
        shape=shape,
        dtype=dtype,
        blocksize=_BLOCK,
        code=_empty(_LEVELS_4BIT, torch.float32),
        quant_type="nf4",
        offset=torch.empty((), device="meta"),
        state2=scales,
    )
    linear.weight = bnb.nn.Params4bit(
        _empty((shape.numel() + 1) // 2, torch.uint8).unsqueeze(1),
        requires_grad=False,
        quant_state=state,
        blocksize=_BLOCK,
        quant_type="nf4",
        bnb_quantized=True,
        module=linear,
    )
    linear.quant_state = state
    _set_bias(linear, dtype)


def _pack_8bit(linear: Any, dtype: torch.dtype) -> None:
    """Gives a linear of bitsandbytes its weight in bytes and one scale a row."""
    packed = torch.empty(linear.weight.shape, dtype=torch.int8, device="meta")
    linear.weight = bnb.nn.Int8Params(packed, requires_grad=False, has_fp16_weights=False)
    linear.weight.CB = linear.weight.data
    linear.weight.SCB = _empty(packed.shape[0], torch.float32)
    _set_bias(linear, dtype)


def _set_bias(linear: Any, dtype: torch.dtype) -> None:
    if linear.bias is not None:
        linear.bias = nn.Parameter(_empty(linear.out_features, dtype), requires_grad=False)


def _empty(size: int, dtype: torch.dtype) -> Tensor:
    return torch.empty(size, dtype=dtype, device="meta")


def _gemm_4bit(  # noqa: PLR0913 (the signature is that of the operation)
    inputs: Tensor,
    packed: Tensor,
    shape: Sequence[int],
    absmax: Tensor,
    blocksize: int,
    quant_type: str,
    bias: Tensor | None = None,
    absmax_8bit: Tensor | None = None,
    absmax_code: Tensor | None = None,
    absmax_offset: Tensor | None = None,
) -> Tensor:
    """The kernel for more than 1,536 rows: brings the scales and the whole weight back first."""
    if absmax_8bit is not None and absmax_offset is not None:
        restored = _ops.dequantize_blockwise.default(
            absmax_8bit, absmax, absmax_code, _BLOCK_OF_SCALES, torch.float32
        )
        absmax = restored + absmax_offset
        del restored
    weight = _ops.dequantize_4bit.default(
        packed, absmax, blocksize, quant_type, shape, inputs.dtype
    )
    return nn.functional.linear(inputs, weight, bias)


def _int8_scaled_mm(
    inputs: Tensor,
    weight: Tensor,
    row_scales: Tensor,
    column_scales: Tensor,
    bias: Tensor | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """The product in 32-bit integers, then its scaling."""
    product = _ops.int8_linear_matmul.default(inputs, weight)
    return _ops.int8_mm_dequant.default(
        product, row_scales, column_scales, dtype=dtype or torch.float16, bias=bias
    )


def _scale_on_cpu(weight: Tensor, scales: Tensor) -> Tensor:
    """Factors of another type make a CPU widen both the weight and the result for a while."""
    common = torch.result_type(weight, scales)
    if common != weight.dtype:
        widened = weight.to(common)
        torch.empty_like(widened)
    return weight


_EXPANSIONS: Mapping[str, Mapping[Any, Callable[..., Any]]] = {
    "cuda": {_ops.gemm_4bit.default: _gemm_4bit, _ops.int8_scaled_mm.default: _int8_scaled_mm},
    "cpu": {
        _ops.gemm_4bit.default: _gemm_4bit,
        torch.ops.aten.mul_.Tensor: _scale_on_cpu,
    },
}
