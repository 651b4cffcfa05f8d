"""One attention function, registered with transformers, that sees trained keys and values."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from autopeft.core.errors import AttachError
from autopeft.method.hook import TrainedSite
from autopeft.method.method import Context
from autopeft.method.rows import Rows

FUSED, PLAIN = "autopeft_fused", "autopeft_plain"
INSERTED = "autopeft_inserted"
"""The attribute of an attention that gives what its layer runs on beside the text."""
_CONTEXT = "autopeft_context"

Attention = Callable[..., tuple[Tensor, Tensor | None]]


class _Front(NamedTuple):
    """What stands in front of keys and values.

    Shapes: key and value (batch, key heads, positions, head_dim); visible, of bool, (batch, 1, 1,
    positions), None where all rows see all positions.
    """

    key: Tensor
    value: Tensor
    visible: Tensor | None


@dataclass(frozen=True)
class Inserted:
    """Positions of a layer that stand before those of the text.

    They see one another, where the layer is causal those before them alone, and the text where it
    is not. The text sees them, wherever it looks.

    Attributes:
        length: how many.
        in_keys: keys have them, not the queries alone.
        visible: which of them are a row's own, (batch, 1, 1, positions); None for all.
    """

    length: int
    in_keys: bool
    visible: Tensor | None

    def mask(
        self, mask: Tensor | None, query: Tensor, key: Tensor, causal: bool, base: Attention
    ) -> Tensor | None:
        """The mask of the text with rows and, in keys, columns for them."""
        queries = query.shape[2] - self.length
        keys = key.shape[2] - (self.length if self.in_keys else 0)
        causal = causal and self.in_keys
        if mask is None:
            if self.visible is None and (not causal or queries == keys):
                return None
            shown = torch.ones(queries, keys, dtype=torch.bool, device=key.device)[None, None]
            shown = shown.tril(keys - queries) if causal else shown
            mask = _additive(shown, query.dtype) if base is _eager else shown
        text = _before(mask, self.length, self.visible) if self.in_keys else mask
        if not causal and text.shape[2] == 1:
            return text
        return torch.cat([self._rows(text, causal), text], dim=2)

    def bias(self, bias: Tensor, query: Tensor, key: Tensor) -> Tensor:
        """A bias of scores by distance, (1, heads, queries, keys), which is zero for them."""
        before = self.length if self.in_keys else 0
        text = bias[..., self.length - query.shape[2] :, before - key.shape[2] :]
        return F.pad(text, (before, 0, self.length, 0))

    def _rows(self, text: Tensor, causal: bool) -> Tensor:
        """What they see themselves, of columns like those of `text`."""
        if not causal:
            rows = text.any(2, True) if text.dtype == torch.bool else text.amax(2, True)
            return rows.expand(-1, -1, self.length, -1)
        square = torch.ones(self.length, self.length, dtype=torch.bool, device=text.device)
        seen = square.tril()[None, None]
        if self.visible is not None:
            seen = seen & self.visible | torch.eye(
                self.length, dtype=torch.bool, device=text.device
            )
        seen = F.pad(seen, (0, text.shape[3] - self.length))
        seen = seen if text.dtype == torch.bool else _additive(seen, text.dtype)
        return seen.expand(text.shape[0], text.shape[1], -1, -1)


@dataclass(frozen=True)
class _Contexts:
    """The contexts of each member that one attention sees."""

    members: Mapping[int, Sequence[Context]]
    rows: Rows

    def front(self, key: Tensor, value: Tensor) -> _Front | None:
        """What stands in front of `key` and `value`; None where no row sees anything there.

        Rows of a member with fewer positions than another are filled up with invisible zeros.
        """
        cut = self.rows.of_each(key.shape[0])
        lengths = {member: self._length(member) for member in cut}
        longest = max(lengths.values())
        if not longest:
            return None
        keys, values = [], []
        for member, rows in cut.items():
            contexts, n_rows = self.members.get(member, ()), rows.stop - rows.start
            pairs = [context.read() for context in contexts]
            heads = [_heads(own, key) for own, _ in pairs]
            keys.append(_filled(heads, key, longest).expand(n_rows, -1, -1, -1))
            heads = [_heads(own, value) for _, own in pairs]
            values.append(_filled(heads, value, longest).expand(n_rows, -1, -1, -1))
        visible = None if set(lengths.values()) == {longest} else _visible(lengths, cut, key.device)
        return _Front(_joined(keys, 0), _joined(values, 0), visible)

    def _length(self, member: int) -> int:
        return sum(context.length for context in self.members.get(member, ()))


def check_routes(model: PreTrainedModel, need: str) -> None:
    """Raises AttachError unless attention runs through transformers' `AttentionInterface`.

    Args:
        model: the backbone.
        need: what wants it, as the end of a sentence.
    """
    if not model._can_set_attn_implementation():
        reason = "does not run its attention through transformers' AttentionInterface"
        raise AttachError(f"{type(model).__name__} {reason}, {need}")


def route(model: PreTrainedModel, undo: ExitStack) -> None:
    """Switches the attention of `model` to one that looks for contexts, until `undo` closes."""
    present = model.config._attn_implementation
    if present not in _LOOKING:
        switch(model, PLAIN if present == "eager" else FUSED, undo)


def switch(model: PreTrainedModel, implementation: str, undo: ExitStack) -> None:
    """Gives `model` the attention function called `implementation`, until `undo` closes.

    Until then the model has copies of its configs: models may share one, and another that lets go
    of its contexts must not switch the attention of this one.
    """
    copies: dict[int, Any] = {}
    for module in model.modules():
        for name, value in list(vars(module).items()):
            if isinstance(value, PreTrainedConfig):
                undo.callback(setattr, module, name, value)
                setattr(module, name, copy.deepcopy(value, copies))
    model.set_attn_implementation(implementation)


def put(members: Sequence[Iterable[TrainedSite]], rows: Rows, undo: ExitStack) -> None:
    """Gives attentions the contexts of every member, in their order, until `undo` closes."""
    by_module: dict[nn.Module, dict[int, list[Context]]] = {}
    for member, sites in enumerate(members):
        for trained in sites:
            if isinstance(trained.part, Context):
                module = trained.layer.attentions[trained.part.attention]
                by_module.setdefault(module, {}).setdefault(member, []).append(trained.part)
    for module, contexts in by_module.items():
        setattr(module, _CONTEXT, _Contexts(contexts, rows))
        undo.callback(delattr, module, _CONTEXT)


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
        causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
        inserted = getattr(module, INSERTED, _nothing)()
        if inserted is not None:
            attention_mask = inserted.mask(attention_mask, query, key, causal, base)
            if position_bias is not None:
                position_bias = inserted.bias(position_bias, query, key)
        contexts = getattr(module, _CONTEXT, None)
        front = None if contexts is None else contexts.front(key, value)
        if front is not None:
            options["is_causal"] = False
            attention_mask = _extend(attention_mask, front, query, key, causal, base)
            if position_bias is not None:
                position_bias = F.pad(position_bias, (front.key.shape[2], 0))
            key = torch.cat([front.key, key], dim=2)
            value = torch.cat([front.value, value], dim=2)
        if position_bias is not None:
            options["position_bias"] = position_bias
        return base(module, query, key, value, attention_mask, **options)

    return attention


def _extend(
    mask: Tensor | None, front: _Front, query: Tensor, key: Tensor, causal: bool, base: Attention
) -> Tensor | None:
    """The mask with columns for the positions in front.

    A causal attention without a mask needs one now: kernels would take the longer keys as later
    positions. So does one in which not all rows see all positions.
    """
    queries, keys = query.shape[2], key.shape[2]
    causal = causal and queries > 1
    if mask is None and (causal or front.visible is not None):
        mask = torch.ones(queries, keys, dtype=torch.bool, device=key.device)[None, None]
        mask = mask.tril() if causal else mask
        mask = _additive(mask, query.dtype) if base is _eager else mask
    return None if mask is None else _before(mask, front.key.shape[2], front.visible)


def _before(mask: Tensor, length: int, visible: Tensor | None) -> Tensor:
    """The mask with columns for `length` positions in front, all seen or those that are visible."""
    if visible is None:
        return F.pad(mask, (length, 0), value=True if mask.dtype == torch.bool else 0.0)
    visible = visible if mask.dtype == torch.bool else _additive(visible, mask.dtype)
    visible = visible.expand(-1, *mask.shape[1:3], -1)
    return torch.cat([visible, mask.expand(visible.shape[0], -1, -1, -1)], dim=-1)


def inserted_in(module: nn.Module) -> int:
    """How many positions stand before those of the text in the layer of an attention, now."""
    inserted = getattr(module, INSERTED, _nothing)()
    return 0 if inserted is None else inserted.length


def _nothing() -> Inserted | None:
    """What stands before the text where nothing does."""
    return None


def _additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    zeros = torch.zeros(mask.shape, dtype=dtype, device=mask.device)
    return zeros.masked_fill(~mask, torch.finfo(dtype).min)


def _heads(context: Tensor, like: Tensor) -> Tensor:
    """(positions, width) as (key heads, positions, head_dim) of `like`."""
    heads = context.to(like.dtype).view(context.shape[0], like.shape[1], like.shape[3])
    return heads.transpose(0, 1)


def _filled(parts: Sequence[Tensor], like: Tensor, length: int) -> Tensor:
    """Contexts (key heads, positions, head_dim) in a row, filled up with zeros to `length`."""
    missing = length - sum(part.shape[1] for part in parts)
    zeros = [like.new_zeros(like.shape[1], missing, like.shape[3])] if missing else []
    return _joined([*parts, *zeros], 1)


def _joined(parts: Sequence[Tensor], dim: int) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), dim)


def _visible(lengths: Mapping[int, int], cut: Mapping[int, slice], device: torch.device) -> Tensor:
    """Which positions each row sees, (batch, 1, 1, positions)."""
    positions = torch.arange(max(lengths.values()), device=device)
    seen = [
        (positions < n).expand(cut[m].stop - cut[m].start, 1, 1, -1) for m, n in lengths.items()
    ]
    return torch.cat(seen)


def _eager(module: nn.Module, *args: Any, **options: Any) -> tuple[Tensor, Tensor | None]:
    """The attention that the architecture's own file writes out."""
    source = sys.modules[type(module).__module__]
    result: tuple[Tensor, Tensor | None] = source.eager_attention_forward(module, *args, **options)
    return result


def register(name: str, base: Attention, mask: str) -> None:
    """Lets transformers know `base`, with contexts before keys and values, as `name`.

    Args:
        name: without the substrings sdpa, flash and flex, on which transformers decides.
        base: an attention function of transformers.
        mask: the implementation whose masks it takes; without one padding would be lost silently.
    """
    ALL_ATTENTION_FUNCTIONS.register(name, _with_context(base))
    ALL_MASK_ATTENTION_FUNCTIONS.register(name, ALL_MASK_ATTENTION_FUNCTIONS[mask])
    _LOOKING.add(name)


_LOOKING: set[str] = set()
register(FUSED, ALL_ATTENTION_FUNCTIONS["sdpa"], "sdpa")
register(PLAIN, _eager, "eager")
