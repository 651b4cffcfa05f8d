"""The decisions of a space on a backbone: what they are called, and the list of all of them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from autopeft.core.methods import DECLARATIONS
from autopeft.space.dimension import Dimension
from autopeft.space.domain import Choice, Range, Subset, Tree
from autopeft.space.form import Form
from autopeft.space.ground import SPACE, Ground, Here

_PLACE = ("method", "where")
"""What a placement says beside its options."""


def decisions(form: Form, ground: Ground) -> dict[str, Dimension]:
    """Every decision that some point asks for, by name, in the order of the document."""
    named: dict[str, Dimension] = {}
    for dimension in _all(form, ground):
        named.setdefault(dimension.name, dimension)
    return named


def tuned_dimension(group: str) -> Dimension:
    """The decision whether a group is tuned."""
    return Dimension.switch(f"layers.tuned@{group}")


@lru_cache(maxsize=4096)
def choice_dimension(node: Choice, path: str, here: Here) -> Dimension:
    """The decision of a choice."""
    return Dimension.of(path + here.suffix(node.per), node)


@lru_cache(maxsize=4096)
def range_dimension(node: Range, path: str, here: Here) -> Dimension:
    """The decision of a range."""
    return Dimension.of(path + here.suffix(node.per), node)


@lru_cache(maxsize=4096)
def member_dimension(node: Subset, item: Any, path: str, here: Here) -> Dimension:
    """The decision about one item of a subset; of one group for a subset of the groups."""
    if node.items is None:
        return Dimension.switch(f"{path}@{item}")
    return Dimension.switch(f"{path}.{item}{here.suffix(node.per)}")


@lru_cache(maxsize=1024)
def option_nodes(entry: Tree) -> list[tuple[str, Any]]:
    """The options of a placement, defaults filled in, in the order in which they are decided.

    Those that can make the placement absent come first: lists that can be empty, then the size.
    """
    declaration = DECLARATIONS[entry["method"]]
    size = declaration.size_option()
    nodes = [(key, entry.get(key, kind.default)) for key, kind in declaration.options().items()]
    nodes += [(key, node) for key, node in entry.entries if key not in {*dict(nodes), *_PLACE}]
    return sorted(nodes, key=lambda item: (not _can_be_empty(item[1]), item[0] != size))


def _can_be_empty(node: Any) -> bool:
    if isinstance(node, Choice):
        return any(_can_be_empty(item) for item in node.items)
    return isinstance(node, Subset)


def _all(form: Form, ground: Ground) -> Iterator[Dimension]:
    yield from _of_node(form.layers.pattern, "layers.pattern", SPACE)
    if isinstance(form.layers.tuned, Subset):
        yield from map(tuned_dimension, ground.names)
    yield from _of_node(form.budget, "budget", SPACE)
    for pattern in ground.groups:
        for here in ground.heres(pattern):
            for i, entry in enumerate(form.place):
                yield from _of_entry(ground, entry, str(i), here)
    yield from _of_node(form.train, "train", SPACE)
    yield from _of_node(form.backbone, "backbone", SPACE)


def _of_entry(ground: Ground, entry: Any, path: str, here: Here) -> Iterator[Dimension]:
    if isinstance(entry, Choice):
        yield choice_dimension(entry, path, here)
        for i, items in enumerate(entry.items):
            for j, item in enumerate(items):
                yield from _of_entry(ground, item, f"{path}[{i}].{j}", here)
        return
    path, where = f"{path}.{entry['method']}", entry.get("where", "all")
    if isinstance(where, str | tuple) and not ground.covers(where, here, path):
        return
    yield from _of_where(where, f"{path}.where", here)
    for key, node in option_nodes(entry):
        yield from _of_node(node, f"{path}.{key}", here)


def _of_where(node: Any, path: str, here: Here) -> Iterator[Dimension]:
    if isinstance(node, Subset):
        yield member_dimension(node, here.group, path, here)
    elif isinstance(node, Choice):
        yield choice_dimension(node, path, SPACE)
        for i, item in enumerate(node.items):
            yield from _of_where(item, f"{path}[{i}]", here)
    elif isinstance(node, Tree):
        yield from _of_node(node, path, SPACE)


def _of_node(node: Any, path: str, here: Here) -> Iterator[Dimension]:
    if isinstance(node, Choice):
        yield choice_dimension(node, path, here)
        for i, item in enumerate(node.items):
            yield from _of_node(item, f"{path}[{i}]", here)
    elif isinstance(node, Range):
        yield range_dimension(node, path, here)
    elif isinstance(node, Subset):
        yield from (member_dimension(node, item, path, here) for item in node.items or ())
    elif isinstance(node, Tree):
        for key, child in node.entries:
            yield from _of_node(child, f"{path}.{key}", here)
