"""Hooks that let layers run on trained positions, which stand before those of the text."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import EncoderDecoderCache, PreTrainedModel

from autopeft.core.errors import AttachError
from autopeft.method.consecutive import in_rows
from autopeft.method.hook import TrainedSite
from autopeft.method.inserted import INSERTED, Inserted
from autopeft.method.method import Insert
from autopeft.method.rows import Rows
from autopeft.method.sites import Layer, layers_of

_TAKEN = {
    *("hidden_states", "attention_mask", "position_ids", "position_embeddings", "position_bias"),
    *("encoder_hidden_states", "encoder_attention_mask", "encoder_decoder_position_bias"),
    *("past_key_values", "layer_past", "use_cache", "output_attentions", "kwargs"),
}
"""Arguments of layers that need nothing for positions which they do not know of."""
_CACHES = ("past_key_values", "layer_past")
_ROTARY = "position_embeddings"
_BEFORE = "autopeft_before"

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


@dataclass(frozen=True)
class _Part:
    """A placement of a member on a layer.

    Attributes:
        enters: the layer before has made nothing of it.
        stays: the layer after goes on with it.
    """

    insert: Insert
    enters: bool
    stays: bool


Parts = Mapping[str, _Part]
"""What a member has on a layer, by placement, in the order of their positions."""

Moving = dict[tuple[int, str], Tensor]
"""What has left a layer and enters the next, (rows, positions, width), by member and placement."""


class _Prompted:
    """A layer with positions of some members.

    Args:
        names: of the arguments of the layer.
        parts: by member.
        moving: what all layers give one another.
        rows: whose are whose.
    """

    def __init__(
        self, names: Sequence[str], parts: Mapping[int, Parts], moving: Moving, rows: Rows
    ) -> None:
        self._names, self._parts, self._moving, self._rows = names, parts, moving, rows
        self._length = 0
        self._visible: Tensor | None = None

    def inserted(self, in_keys: bool) -> Inserted | None:
        """What the layer runs on beside the text in the present pass."""
        return Inserted(self._length, in_keys, self._visible) if self._length else None

    def enter(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
        """The arguments of the layer, with more positions."""
        named = dict(zip(self._names, args, strict=False)) | kwargs
        hidden = named.pop(self._names[0])
        cut = self._rows.of_each(hidden.shape[0])
        lengths = {member: self._length_of(member) for member in cut}
        n = self._length = max(lengths.values())
        if not n:
            return args, kwargs
        same = set(lengths.values()) == {n}
        self._visible = None if same else _visible(lengths, cut, n, hidden.device)
        before = torch.cat([self._before(member, rows, hidden) for member, rows in cut.items()])
        for name in _CACHES:
            if named.get(name) is not None:
                named[name] = _without(named[name], n)
        if named.get(_ROTARY) is not None:
            named[_ROTARY] = _rotated(named[_ROTARY], n)
        return (torch.cat([before, hidden], dim=1),), named

    def leave(self, module: nn.Module, args: Any, output: Any) -> Any:
        """What the layer returns of the text; where that is one position, it is of the text."""
        n = self._length
        if not n:
            return output
        hidden, *more = output if isinstance(output, tuple) else (output,)
        for member, rows in self._rows.of_each(hidden.shape[0]).items():
            start = n - self._length_of(member)
            for placement, part in self._parts.get(member, {}).items():
                end = start + part.insert.length
                if part.stays:
                    self._moving[member, placement] = hidden[rows, start:end]
                start = end
        text = hidden[:, n:] if hidden.shape[1] > n else hidden
        if not isinstance(output, tuple):
            return text
        biases = zip(more, (n, *[0] * len(more)), strict=False)
        told = (_of_text(bias, n, before, hidden.shape[1]) for bias, before in biases)
        return text, *told

    def _length_of(self, member: int) -> int:
        return sum(part.insert.length for part in self._parts.get(member, {}).values())

    def _before(self, member: int, rows: slice, hidden: Tensor) -> Tensor:
        """What stands before the rows of a member, after zeros, (rows, positions, width)."""
        n_rows, missing = rows.stop - rows.start, self._length - self._length_of(member)
        block = [hidden.new_zeros(n_rows, missing, hidden.shape[-1])]
        for placement, part in self._parts.get(member, {}).items():
            if part.enters:
                block.append(part.insert.read().to(hidden.dtype).expand(n_rows, -1, -1))
            else:
                block.append(self._moving.pop((member, placement)))
        return torch.cat(block, dim=1)


def check_layers(model: PreTrainedModel, method: str) -> None:
    """Raises AttachError where layers take what is not known for positions that a method adds."""
    known = _TAKEN if _rotaries(model) else _TAKEN - {_ROTARY}
    for layer in layers_of(model):
        names = inspect.signature(model.get_submodule(layer.path).forward).parameters
        odd = next((name for name in names if name not in known), None)
        if layer.attentions and odd is not None:
            reason = f"takes {odd} for the positions of the text alone, and {method} adds some"
            raise AttachError(f"{layer.path} of {type(model).__name__} {reason}")


def put(
    model: PreTrainedModel,
    members: Sequence[Iterable[TrainedSite]],
    rows: Rows,
    undo: ExitStack,
) -> None:
    """Lets layers of `model` run on the positions of every member until `undo` closes."""
    by_layer: dict[int, dict[int, dict[str, _Part]]] = {}
    for member, sites in enumerate(members):
        inserts = [site for site in sites if isinstance(site.part, Insert)]
        for index, placement, part in _parts(inserts):
            by_layer.setdefault(index, {}).setdefault(member, {})[placement] = part
    if not by_layer:
        return
    moving: Moving = {}
    undo.callback(moving.clear)
    layers = layers_of(model)
    for index, parts in by_layer.items():
        _prompt(model, layers[index], parts, moving, rows, undo)
    longest = max(
        sum(part.insert.length for part in of_member.values())
        for parts in by_layer.values()
        for of_member in parts.values()
    )
    for module in _rotaries(model):
        hook = module.register_forward_pre_hook(partial(_more, longest), with_kwargs=True)
        undo.callback(hook.remove)
        undo.callback(module.register_forward_hook(partial(_parted, longest)).remove)


def _parts(sites: Sequence[TrainedSite]) -> Iterable[tuple[int, str, _Part]]:
    """The placements of a member by layer."""
    for site, continues, goes_on in in_rows(sites):
        insert = site.part
        assert isinstance(insert, Insert)
        part = _Part(insert, not (insert.moves and continues), insert.moves and goes_on)
        yield site.placed.layer, site.placed.common, part


def _prompt(
    model: PreTrainedModel,
    layer: Layer,
    parts: Mapping[int, Parts],
    moving: Moving,
    rows: Rows,
    undo: ExitStack,
) -> None:
    """Hooks one layer."""
    module = model.get_submodule(layer.path)
    names = tuple(inspect.signature(module.forward).parameters)
    prompted = _Prompted(names, parts, moving, rows)
    for kind, attention in layer.attentions.items():
        setattr(attention, INSERTED, partial(prompted.inserted, kind == "self"))
        undo.callback(delattr, attention, INSERTED)
    hook = module.register_forward_pre_hook(prompted.enter, with_kwargs=True)
    undo.callback(hook.remove)
    undo.callback(module.register_forward_hook(prompted.leave).remove)


def _of_text(more: Any, n: int, before: int, positions: int) -> Any:
    """What a layer that measures distances tells the next one, which may have no positions.

    Args:
        more: a bias of scores (1, heads, queries, keys) of self-attention, or of cross-attention;
            anything else stays, and so does one that was of the text already.
        n: positions before the text.
        before: those of them among the keys.
        positions: all of the layer.
    """
    of_all = isinstance(more, Tensor) and more.dim() == 4 and more.shape[2] == positions
    return more[:, :, n:, before:] if of_all else more


def _visible(
    lengths: Mapping[int, int], cut: Mapping[int, slice], longest: int, device: torch.device
) -> Tensor:
    """Which of the positions are a row's own, the last ones, (rows, 1, 1, longest)."""
    positions = torch.arange(longest, device=device)
    own = [
        (positions >= longest - n).expand(cut[m].stop - cut[m].start, 1, 1, -1)
        for m, n in lengths.items()
    ]
    return torch.cat(own)


class _TextOnly:
    """A cache of keys and values to which the first positions of a layer stay unknown."""

    def __init__(self, cache: Any, length: int) -> None:
        self._cache, self._length = cache, length

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cache, name)

    def update(
        self, key: Tensor, value: Tensor, *args: Any, **options: Any
    ) -> tuple[Tensor, Tensor]:
        """Keeps those of the text, (rows, heads, positions, width), and returns all."""
        n = self._length
        kept = self._cache.update(key[:, :, n:], value[:, :, n:], *args, **options)
        first, second = (
            torch.cat([new[:, :, :n], old], dim=2)
            for new, old in zip((key, value), kept, strict=True)
        )
        return first, second


def _without(cache: Any, length: int) -> Any:
    """The cache of one or two attentions, which keeps only what comes after `length` positions."""
    if not isinstance(cache, EncoderDecoderCache):
        return _TextOnly(cache, length)
    both = copy.copy(cache)
    both.self_attention_cache = _TextOnly(cache.self_attention_cache, length)
    return both


def _rotaries(model: PreTrainedModel) -> list[nn.Module]:
    """The modules that turn positions into rotations, (rows, positions, width) twice."""
    return [
        module
        for module in model.modules()
        if type(module).__name__.endswith("RotaryEmbedding")
        and "position_ids" in inspect.signature(module.forward).parameters
    ]


def _more(n: int, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
    """Asks for the rotations of the positions from -n on, too."""
    named = inspect.signature(module.forward).bind(*args, **kwargs).arguments
    positions = named["position_ids"]
    before = torch.arange(-n, 0, device=positions.device).expand(*positions.shape[:-1], -1)
    return (), named | {"position_ids": torch.cat([before, positions], dim=-1)}


def _parted(
    n: int, module: nn.Module, args: Any, output: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """The rotations of the text; the cosines know those before."""
    cos, sin = (rotation[..., n:, :] for rotation in output)
    setattr(cos, _BEFORE, [rotation[..., :n, :] for rotation in output])
    return cos, sin


def _rotated(rotations: tuple[Tensor, Tensor], n: int) -> tuple[Tensor, Tensor]:
    """Rotations with those of the n positions before."""
    before: Sequence[Tensor] = getattr(rotations[0], _BEFORE)
    cos, sin = (
        torch.cat([old[..., old.shape[-2] - n :, :], new], dim=-2)
        for old, new in zip(before, rotations, strict=True)
    )
    return cos, sin
