"""One attention function, registered with transformers, that sees trained keys and values."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from autopeft.core.errors import AttachError
from autopeft.method.method import Context

FUSED, PLAIN = "autopeft_fused", "autopeft_plain"
_CONTEXT = "autopeft_context"

Attention = Callable[..., tuple[Tensor, Tensor | None]]


def check_routes(model: PreTrainedModel) -> None:
    """Raises AttachError unless attention runs through transformers' `AttentionInterface`."""
    if not model._can_set_attn_implementation():
        reason = "does not run its attention through transformers' AttentionInterface"
        raise AttachError(f"{type(model).__name__} {reason}, which prefixes need")


def route(model: PreTrainedModel, undo: ExitStack) -> None:
    """Switches the attention of `model` to one that looks for contexts, until `undo` closes.

    Until then the model has copies of its configs: models may share one, and another that lets go
    of its contexts must not switch the attention of this one.
    """
    copies: dict[int, Any] = {}
    for module in model.modules():
        for name, value in list(vars(module).items()):
            if isinstance(value, PreTrainedConfig):
                undo.callback(setattr, module, name, value)
                setattr(module, name, copy.deepcopy(value, copies))
    eager = model.config._attn_implementation == "eager"
    model.set_attn_implementation(PLAIN if eager else FUSED)


def put(module: nn.Module, context: Context, undo: ExitStack) -> None:
    """Gives the attention `module` a context, behind those it has, until `undo` closes."""
    setattr(module, _CONTEXT, (*getattr(module, _CONTEXT, ()), context))
    undo.callback(module.__dict__.pop, _CONTEXT, None)


def _with_context(base: Attention) -> Attention:
    """`base` as an attention function that puts a module's contexts before its keys and values.

    Shapes: query (batch, heads, queries, head_dim), key and value (batch, key heads, keys,
    head_dim), mask (batch or 1, heads or 1, queries or 1, keys), additive or boolean.
    """

    def attention(
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        is_causal: bool | None = None,
        position_bias: Tensor | None = None,
        **options: Any,
    ) -> tuple[Tensor, Tensor | None]:
        if is_causal is not None:
            options["is_causal"] = is_causal
        contexts = getattr(module, _CONTEXT, ())
        if contexts:
            causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
            options["is_causal"] = False
            length = sum(context.key.shape[0] for context in contexts)
            attention_mask = _extend(attention_mask, length, query, key, causal, base)
            position_bias = None if position_bias is None else F.pad(position_bias, (length, 0))
            key = torch.cat([*(_heads(c.key, c.scale, key) for c in contexts), key], dim=2)
            value = torch.cat([*(_heads(c.value, c.scale, value) for c in contexts), value], dim=2)
        if position_bias is not None:
            options["position_bias"] = position_bias
        return base(module, query, key, value, attention_mask, **options)

    return attention


def _extend(
    mask: Tensor | None, length: int, query: Tensor, key: Tensor, causal: bool, base: Attention
) -> Tensor | None:
    """The mask with `length` visible columns in front.

    A causal attention without a mask needs one now: kernels would take the longer keys as later
    positions.
    """
    queries, keys = query.shape[2], key.shape[2]
    if mask is None and causal and queries > 1:
        mask = torch.ones(queries, keys, dtype=torch.bool, device=key.device).tril()[None, None]
        if base is _eager:
            zeros = torch.zeros(mask.shape, dtype=query.dtype, device=key.device)
            mask = zeros.masked_fill(~mask, torch.finfo(query.dtype).min)
    if mask is None:
        return None
    return F.pad(mask, (length, 0), value=True if mask.dtype == torch.bool else 0.0)


def _heads(context: Tensor, scale: float, like: Tensor) -> Tensor:
    """`scale` times (positions, width) as (batch, key heads, positions, head_dim) of `like`."""
    heads = (context * scale).to(like.dtype).view(context.shape[0], like.shape[1], like.shape[3])
    return heads.transpose(0, 1).expand(like.shape[0], -1, -1, -1)


def _eager(module: nn.Module, *args: Any, **options: Any) -> tuple[Tensor, Tensor | None]:
    """The attention that the architecture's own file writes out."""
    source = sys.modules[type(module).__module__]
    result: tuple[Tensor, Tensor | None] = source.eager_attention_forward(module, *args, **options)
    return result


# The names hold none of the substrings sdpa, flash and flex, on which transformers decides. A name
# without a mask function would lose padding silently.
ALL_ATTENTION_FUNCTIONS.register(FUSED, _with_context(ALL_ATTENTION_FUNCTIONS["sdpa"]))
ALL_MASK_ATTENTION_FUNCTIONS.register(FUSED, ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])
ALL_ATTENTION_FUNCTIONS.register(PLAIN, _with_context(_eager))
ALL_MASK_ATTENTION_FUNCTIONS.register(PLAIN, ALL_MASK_ATTENTION_FUNCTIONS["eager"])
