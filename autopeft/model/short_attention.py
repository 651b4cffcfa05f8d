"""Attention for short sequences on a CPU, as a few products of all heads at once."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from autopeft.method import attention
from autopeft.method.inserted import n_inserted
from autopeft.method.text import WHOLE
from autopeft.model.dropout import dropout_mask

SHORT = "autopeft_short"
"""Its name to transformers."""

LONGEST = 256
"""Queries above which the scores outgrow the caches."""

FIRST_ONLY = "autopeft_first_only"
"""Attribute of an attention of whose output of a text nothing but the first position is read."""

_UNUSUAL = ("position_bias", "softcap", "s_aux", "cache")
_fused = ALL_ATTENTION_FUNCTIONS["sdpa"]


def short_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **options: Any,
) -> tuple[Tensor, Tensor | None]:
    """An attention function of transformers, with the semantics and the options of its `sdpa`.

    Longer sequences and biases of positions go to that one. Of a module marked `FIRST_ONLY` the
    output is zero but at the first position of the text.

    Args:
        module: the attention, whose `is_causal` holds where no option says so.
        query: (batch, heads, queries, head_dim).
        key: (batch, key heads, keys, head_dim).
        value: like `key`.
        attention_mask: (batch or 1, heads or 1, queries, keys), of bool or additive.
        options: `dropout` of the weights, `scaling` of the scores, `is_causal` where there is no
            mask, and others.

    Returns:
        (batch, queries, heads, head_dim), and no weights.
    """
    queries = query.shape[2]
    if queries > LONGEST or any(options.get(name) is not None for name in _UNUSUAL):
        return _fused(module, query, key, value, attention_mask, **options)
    causal = options.get("is_causal")
    causal = getattr(module, "is_causal", True) if causal is None else causal
    if attention_mask is None and causal and queries > 1:
        seen = torch.ones(queries, key.shape[2], dtype=torch.bool, device=key.device)
        attention_mask = seen.tril()[None, None]
    first = n_inserted(module)
    shortened = getattr(module, FIRST_ONLY, False) and not hasattr(module, WHOLE)
    if shortened:
        query = query[:, :, first : first + 1]
        if attention_mask is not None and attention_mask.shape[2] > 1:
            attention_mask = attention_mask[:, :, first : first + 1]
    scaling = options.get("scaling")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    dropout = options.get("dropout", 0.0)
    output = _Attention.apply(query, key, value, attention_mask, scale, dropout)
    if shortened:
        output = F.pad(output, (0, 0, 0, 0, first, queries - first - 1))
    return output, None


class _Attention(torch.autograd.Function):
    """softmax(scale Q K^T + mask) V, the softmax in float32 or better.

    Queries of the heads that share a key head are rows of one product. Backward needs no softmax:
    with P = weights and dP = their gradient, dS = P (dP - sum_j P_j dP_j), where the sum is that
    of dO O over the head (Dao et al., "FlashAttention", 2022, appendix B.2).
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        scale: float,
        dropout: float,
    ) -> Tensor:
        batch, heads, queries, _ = query.shape
        q, k, v = _rows(query * scale, key.shape[1]), _rows(key), _rows(value)
        scores = torch.bmm(q, k.transpose(1, 2))
        wide = scores.to(torch.promote_types(query.dtype, torch.float32))
        if mask is not None:
            wide.view(batch, heads, queries, -1).add_(_added(mask, wide.dtype))
        weights = torch.softmax(wide, -1).to(query.dtype)
        keep = dropout_mask(weights, dropout) if dropout else None
        output = torch.bmm(weights if keep is None else weights * keep, v)
        ctx.save_for_backward(q, k, v, weights, keep, output)
        ctx.scale, ctx.shapes = scale, (query.shape, key.shape, value.shape)
        return output.view(batch, heads, queries, -1).transpose(1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, towards: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, weights, keep, output = ctx.saved_tensors
        query, key, value = ctx.shapes
        g = _rows(towards.transpose(1, 2), key[1])
        thinned = weights if keep is None else weights * keep
        by_value = torch.bmm(thinned.transpose(1, 2), g).view(value)
        scores = torch.bmm(g, v.transpose(1, 2))
        if keep is not None:
            scores.mul_(keep)
        mean = (g * output).sum(-1, keepdim=True)  # of the above under the weights
        scores.sub_(mean).mul_(weights)
        by_query = torch.bmm(scores, k).mul_(ctx.scale).view(query)
        by_key = torch.bmm(scores.transpose(1, 2), q).view(key)
        return by_query, by_key, by_value, None, None, None


def _rows(x: Tensor, key_heads: int | None = None) -> Tensor:
    """(batch, heads, positions, width) as (batch * key heads, rows, width)."""
    batch, heads, positions, width = x.shape
    groups = heads // (key_heads or heads)
    return x.reshape(batch * heads // groups, groups * positions, width)


def _added(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """A mask as what is added to scores; a query that sees nothing sees everything alike."""
    if mask.dtype != torch.bool:
        return mask
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(
        ~mask, torch.finfo(dtype).min
    )


attention.register(SHORT, short_attention, "sdpa")
