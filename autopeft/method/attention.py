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
from autopeft.method.hook import TrainedSite, widened
from autopeft.method.inserted import additive, inserted_in, with_columns
from autopeft.method.method import Context
from autopeft.method.rows import Rows
from autopeft.method.sites import Layer
from autopeft.method.text import Text

FUSED, PLAIN = "autopeft_fused", "autopeft_plain"
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


class _Entered:
    """What has entered an attention of a layer in the present pass.

    Args:
        layer: where the attention is.
        text: of the pass.
    """

    def __init__(self, layer: Layer, text: Text) -> None:
        self._layer, self._text = layer, text
        self._x: Tensor | None = None

    def note(self, query: nn.Module, inputs: tuple[Any, ...]) -> None:
        """A hook before the linear that makes queries."""
        self._x = inputs[0]

    def gate(self, context: Context, rows: slice) -> Tensor | None:
        """By what the keys and values of some rows are multiplied, (rows, 1, length or 1, 1)."""
        if context.gate is None:
            return None
        assert self._x is not None
        average = self._text.average(self._layer, self._x)
        return context.gate(widened(self._x[rows]), average[rows])[:, None]


@dataclass(frozen=True)
class _Contexts:
    """The contexts of each member that one attention sees."""

    members: Mapping[int, Sequence[Context]]
    rows: Rows
    entered: _Entered

    def front(self, key: Tensor, value: Tensor) -> _Front | None:
        """What stands in front of `key` and `value`; None where no row sees anything there.

        Rows of a member with fewer positions than another are filled up with invisible zeros.
        """
        cut = self.rows.of_each(key.shape[0])
        lengths = {member: self._length(member) for member in cut}
        longest = max(lengths.values())
        if not longest:
            return None
        keys: list[Tensor] = []
        values: list[Tensor] = []
        for member, rows in cut.items():
            contexts, n_rows = self.members.get(member, ()), rows.stop - rows.start
            gates = [self.entered.gate(context, rows) for context in contexts]
            own = [context.read() for context in contexts]
            differing = 1 if all(gate is None for gate in gates) else n_rows
            for all_rows, like, which in ((keys, key, 0), (values, value, 1)):
                parts = [_heads(p[which], like, gate) for p, gate in zip(own, gates, strict=True)]
                filled = _filled(parts, like, longest, differing)
                all_rows.append(filled.expand(n_rows, -1, -1, -1))
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


def put(members: Sequence[Iterable[TrainedSite]], rows: Rows, text: Text, undo: ExitStack) -> None:
    """Gives attentions the contexts of every member, in their order, until `undo` closes."""
    attentions: dict[nn.Module, tuple[Layer, str]] = {}
    by_module: dict[nn.Module, dict[int, list[Context]]] = {}
    for member, sites in enumerate(members):
        for trained in sites:
            if isinstance(trained.part, Context):
                kind = trained.part.attention
                module = trained.layer.attentions[kind]
                attentions[module] = trained.layer, kind
                by_module.setdefault(module, {}).setdefault(member, []).append(trained.part)
    for module, contexts in by_module.items():
        layer, kind = attentions[module]
        entered = _Entered(layer, text)
        if any(context.gate for of_member in contexts.values() for context in of_member):
            query = layer.module(f"{kind}.q")
            undo.callback(query.register_forward_pre_hook(entered.note).remove)
        setattr(module, _CONTEXT, _Contexts(contexts, rows, entered))
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
        inserted = inserted_in(module)
        if inserted is not None:
            attention_mask = inserted.mask(attention_mask, query, key, causal, base is _eager)
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
        mask = additive(mask, query.dtype) if base is _eager else mask
    return None if mask is None else with_columns(mask, front.key.shape[2], front.visible)


def _heads(context: Tensor, like: Tensor, gate: Tensor | None) -> Tensor:
    """(positions, width) as (rows or 1, key heads, positions, head_dim), like `like`."""
    heads = context.to(like.dtype).view(context.shape[0], like.shape[1], like.shape[3])
    heads = heads.transpose(0, 1)[None]
    return heads if gate is None else heads * gate.to(like.dtype)


def _filled(parts: Sequence[Tensor], like: Tensor, length: int, rows: int) -> Tensor:
    """Contexts (rows or 1, key heads, positions, head_dim) in a row, filled with zeros."""
    missing = length - sum(part.shape[2] for part in parts)
    zeros = [like.new_zeros(1, like.shape[1], missing, like.shape[3])] if missing else []
    return _joined([part.expand(rows, -1, -1, -1) for part in (*parts, *zeros)], 2)


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
