"""Layers by name, and their division into groups."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from autopeft.core.errors import SpaceError, shown, unknown
from autopeft.core.shape import Shape

PATTERNS = ("uniform", "increasing", "decreasing", "spindle", "bottleneck")
ALLOCATIONS = ("uniform", "increasing", "decreasing")

Groups = tuple[tuple[str, tuple[int, ...]], ...]

_SELECTOR = re.compile(r"(?:(encoder|decoder)\.?)?(?:(-?\d{1,9})(?:-(-?\d{1,9}))?)?")


def is_selector(item: int | str) -> bool:
    """Whether `item` has the form of a selector of layers."""
    return bool(_SELECTOR.fullmatch(str(item).replace(" ", ""))) or item == "all"


def select(selector: int | str, shape: Shape, where: str) -> tuple[int, ...]:
    """The layers that `0-5`, `-2`, `encoder.0-5`, `decoder` or `all` names.

    Raises:
        SpaceError: not of that form, or a layer that the backbone does not have.
    """
    text = str(selector).replace(" ", "")
    if text == "all":
        return tuple(range(len(shape.layers)))
    match = _SELECTOR.fullmatch(text)
    if not match or not text:
        raise SpaceError(f"expected layers such as 0-5, -2 or encoder.0-5, got {text!r}", where)
    stack = shape.stack(match[1] or "")
    if not stack:
        raise SpaceError(f"the backbone has no separate {match[1]}, got {text!r}", where)
    if match[2] is None:
        return tuple(stack)
    first = _position(int(match[2]), len(stack), text, where)
    last = _position(int(match[3]), len(stack), text, where) if match[3] else first
    if last < first:
        raise SpaceError(f"the range {text!r} is empty", where)
    return tuple(stack[first : last + 1])


def select_all(selectors: Any, shape: Shape, where: str) -> tuple[int, ...]:
    """The layers that one selector or a list of them names, ascending."""
    items = selectors if isinstance(selectors, tuple | list) else (selectors,)
    return tuple(sorted({layer for item in items for layer in select(item, shape, where)}))


def _position(index: int, n: int, text: str, where: str) -> int:
    position = index + n if index < 0 else index
    if not 0 <= position < n:
        raise SpaceError(f"layer {index} of {text!r} is not among the {n} layers", where)
    return position


def group_sizes(n_layers: int, n_groups: int, pattern: str) -> tuple[int, ...]:
    """How many of `n_layers` stand in each of `n_groups`, at least one each.

    The patterns are those of Chen et al. (2023), section 3: uniform, increasing, decreasing,
    spindle (few, many, many, few) and bottleneck (many, few, few, many).
    """
    if pattern == "decreasing":
        return group_sizes(n_layers, n_groups, "increasing")[::-1]
    middle = range(1, n_groups - 1)
    weights = {
        "uniform": [1.0] * n_groups,
        "increasing": [float(i + 1) for i in range(n_groups)],
        "spindle": [2.0 if i in middle else 1.0 for i in range(n_groups)],
        "bottleneck": [1.0 if i in middle else 2.0 for i in range(n_groups)],
    }[pattern]
    return _rounded([n_layers * w / sum(weights) for w in weights], n_layers)


def _rounded(quotas: Sequence[float], total: int) -> tuple[int, ...]:
    """Whole numbers of at least 1 that sum to `total`, by largest remainder."""
    sizes = [max(1, int(q + 1e-9)) for q in quotas]
    by_need = sorted(
        range(len(quotas)), key=lambda i: (-round(quotas[i] - sizes[i], 9), (i + 1) % 2, i)
    )
    for i in range(total - sum(sizes)):
        sizes[by_need[i % len(sizes)]] += 1
    while sum(sizes) > total:
        sizes[sizes.index(max(sizes))] -= 1
    return tuple(sizes)


def group_names(groups: Any, shape: Shape) -> tuple[str, ...]:
    """The names of the groups that `layers.groups` makes on a backbone.

    Raises:
        SpaceError: more groups than layers.
    """
    if isinstance(groups, Mapping):
        return tuple(groups)
    if groups == "all":
        return ("all",)
    if groups == "each":
        return tuple(str(i) for i in range(len(shape.layers)))
    if groups > len(shape.layers):
        reason = f"{shown(groups)} groups do not fit {len(shape.layers)} layers"
        raise SpaceError(reason, "layers.groups")
    return tuple(f"g{i + 1}" for i in range(groups))


def partition(groups: Any, pattern: str, shape: Shape) -> Groups:
    """The named groups of layers of one backbone.

    Raises:
        SpaceError: more groups than layers, a layer in two groups, or a layer that is not there.
    """
    n, names = len(shape.layers), group_names(groups, shape)
    if groups == "all":
        return (("all", tuple(range(n))),)
    if groups == "each":
        return tuple((name, (i,)) for i, name in enumerate(names))
    if isinstance(groups, Mapping):
        return _named(groups, shape)
    made, start = [], 0
    for name, size in zip(names, group_sizes(n, groups, pattern), strict=True):
        made.append((name, tuple(range(start, start + size))))
        start += size
    return tuple(made)


def _named(groups: Mapping[str, Any], shape: Shape) -> Groups:
    owner: dict[int, str] = {}
    made = []
    for name, selector in groups.items():
        layers = select_all(selector, shape, f"layers.groups.{name}")
        for layer in layers:
            if layer in owner:
                raise SpaceError(
                    f"layer {layer} stands in {owner[layer]} and in {name}", "layers.groups"
                )
            owner[layer] = name
        made.append((name, layers))
    return tuple(made)


def known_group(name: str, names: Sequence[str], where: str) -> str:
    """`name`, if a group is called so.

    Raises:
        SpaceError: no group has this name.
    """
    if name not in names:
        raise SpaceError(unknown("group", name, names), where)
    return name
