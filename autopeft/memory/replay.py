"""Runs operations on meta tensors, computing each result's geometry once.

Layers of a network repeat each other and so do configurations of a search, while the rule that
gives the shapes of a result costs up to a millisecond in Python.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import torch

_META = torch.device("meta")
_LIMIT = 50_000
_LITERALS = frozenset(
    {int, float, bool, complex, str, type(None), torch.dtype, torch.device, torch.layout}
    | {torch.memory_format}
)
_recipes: dict[Hashable, Any] = {}
_views: set[Any] = set()


class _OpaqueError(Exception):
    """An argument or result that is not fully described by its geometry."""


def replay(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """What `func(*args, **kwargs)` returns, for operations of `torch.ops`.

    Results that share no storage with an argument are made anew from the geometry that the same
    operation gave for arguments of the same geometry; everything else is executed.
    """
    if func in _views:
        return func(*args, **kwargs)
    try:
        key = (func, _geometry(args), _geometry(kwargs.items()))
    except _OpaqueError:
        return func(*args, **kwargs)
    recipe = _recipes.get(key)
    if recipe is None:
        return _first(key, func, args, kwargs)
    return _made(recipe, args)


def _first(key: Hashable, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Executes `func` and keeps how to make its results."""
    out = func(*args, **kwargs)
    try:
        recipe = _recipe(out, args, set(_storages((*args, *kwargs.values()))))
    except _OpaqueError:
        _views.add(func)
        return out
    if torch.Tag.inplace_view in func.tags:
        _views.add(func)
        return out
    if len(_recipes) > _LIMIT:
        _recipes.clear()
    _recipes[key] = recipe
    return out


def _geometry(values: Iterable[Any]) -> tuple[Hashable, ...]:
    """Shapes, strides and types of tensors, values of anything else.

    Raises:
        _OpaqueError: a tensor holds data, or a value is none of `_LITERALS`.
    """
    parts: list[Hashable] = []
    for value in values:
        if isinstance(value, torch.Tensor):
            if not value.is_meta:
                raise _OpaqueError
            parts.append((value.shape, value.stride(), value.dtype))
        elif isinstance(value, list | tuple):
            parts.append(_geometry(value))
        elif type(value) in _LITERALS:
            parts.append((type(value), value))
        else:
            raise _OpaqueError
    return tuple(parts)


def _storages(values: Iterable[Any]) -> Iterable[int]:
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value.untyped_storage()._cdata
        elif isinstance(value, list | tuple):
            yield from _storages(value)


def _recipe(out: Any, args: Sequence[Any], taken: set[int]) -> Any:
    """How to make `out` again: an index into `args`, a geometry, or a list of such.

    Raises:
        _OpaqueError: a tensor that shares a storage, holds data or has room to spare.
    """
    if isinstance(out, list | tuple):
        return (type(out), [_recipe(item, args, taken) for item in out])
    if not isinstance(out, torch.Tensor):
        return (None, out)
    for index, arg in enumerate(args):
        if arg is out:
            return index
    storage = out.untyped_storage()
    fresh = torch.empty_strided(out.shape, out.stride(), dtype=out.dtype, device=_META)
    if not out.is_meta or storage._cdata in taken or out.storage_offset():
        raise _OpaqueError
    if fresh.untyped_storage().nbytes() != storage.nbytes():
        raise _OpaqueError
    taken.add(storage._cdata)
    return (torch.Tensor, (out.shape, out.stride(), out.dtype))


def _made(recipe: Any, args: Sequence[Any]) -> Any:
    if isinstance(recipe, int):
        return args[recipe]
    kind, content = recipe
    if kind is torch.Tensor:
        shape, stride, dtype = content
        return torch.empty_strided(shape, stride, dtype=dtype, device=_META)
    if kind is None:
        return content
    return kind(_made(item, args) for item in content)
