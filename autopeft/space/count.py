"""The decisions of a bound space, and in how many ways they can be taken."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

from autopeft.space.dimension import Dimension
from autopeft.space.domain import Choice, Range, Scope, Subset, Tree
from autopeft.space.layers import Groups
from autopeft.space.walk import (
    SPACE,
    Here,
    choice_dimension,
    covers,
    group_layers,
    member_dimension,
    option_nodes,
    range_dimension,
)

if TYPE_CHECKING:
    from autopeft.space.bound import BoundSpace


def all_dimensions(space: BoundSpace) -> Iterable[Dimension]:
    """Every decision that some point asks for, each once, in the order of the document."""
    found: dict[str, Dimension] = {}
    for dimension in _dimensions(space):
        found.setdefault(dimension.name, dimension)
    return found.values()


def _dimensions(space: BoundSpace) -> Iterator[Dimension]:
    document = space.space
    yield from _node_dimensions(document.layers.pattern, "layers.pattern", SPACE)
    if isinstance(document.layers.tuned, Subset):
        yield from (space.tuned_dimension(name) for name in space.names)
    for key, node in document.budget.entries:
        yield from _node_dimensions(node, f"budget.{key}", SPACE)
    for pattern in space.patterns:
        for here in group_layers(space.partition(pattern)):
            for i, entry in enumerate(document.place):
                yield from _entry_dimensions(space, entry, str(i), here)
    yield from _node_dimensions(document.train, "train", SPACE)
    yield from _node_dimensions(document.backbone, "backbone", SPACE)


def _entry_dimensions(space: BoundSpace, entry: Any, path: str, here: Here) -> Iterator[Dimension]:
    if isinstance(entry, Choice):
        yield choice_dimension(entry, path, here)
        for i, items in enumerate(entry.items):
            for j, item in enumerate(items):
                yield from _entry_dimensions(space, item, f"{path}[{i}].{j}", here)
        return
    path, where = f"{path}.{entry['method']}", entry.get("where", "all")
    if isinstance(where, str | tuple) and not covers(where, here, space.names, space.shape, path):
        return
    yield from _where_dimensions(where, f"{path}.where", here)
    for key, node in option_nodes(entry):
        yield from _node_dimensions(node, f"{path}.{key}", here)


def _where_dimensions(node: Any, path: str, here: Here) -> Iterator[Dimension]:
    if isinstance(node, Subset):
        yield member_dimension(node, here.group, path, here)
    elif isinstance(node, Choice):
        yield choice_dimension(node, path, SPACE)
        for i, item in enumerate(node.items):
            yield from _where_dimensions(item, f"{path}[{i}]", here)
    elif isinstance(node, Tree):
        yield from _node_dimensions(node, path, SPACE)


def _node_dimensions(node: Any, path: str, here: Here) -> Iterator[Dimension]:
    if isinstance(node, Choice):
        yield choice_dimension(node, path, here)
        for i, item in enumerate(node.items):
            yield from _node_dimensions(item, f"{path}[{i}]", here)
    elif isinstance(node, Range):
        yield range_dimension(node, path, here)
    elif isinstance(node, Subset):
        yield from (member_dimension(node, item, path, here) for item in node.items or ())
    elif isinstance(node, Tree):
        for key, child in node.entries:
            yield from _node_dimensions(child, f"{path}.{key}", here)


@dataclass(frozen=True)
class _Extent:
    """The part of the layers for which a node is filled."""

    groups: Groups
    scope: Scope

    def instances(self, scope: Scope) -> Sequence[_Extent]:
        """The parts for which a domain of `scope` is filled separately."""
        if scope == "space" or self.scope == "layer" or scope == self.scope:
            return (self,)
        by_group = [_Extent(((name, layers),), "group") for name, layers in self.groups]
        if scope == "group":
            return by_group
        return [
            _Extent(((name, (layer,)),), "layer")
            for name, layers in self.groups
            for layer in layers
        ]


def count_assignments(space: BoundSpace) -> int:
    """In how many ways the domains can be filled; a continuous range counts once."""
    document = space.space
    whole = _Extent((("", (0,)),), "space")
    tuned = 2 ** len(space.names) if isinstance(document.layers.tuned, Subset) else 1
    settings = (document.train, document.backbone, document.budget)
    placements = sum(
        prod(
            _ways(space, entry, _Extent(space.partition(pattern), "space"), "group")
            for entry in document.place
        )
        for pattern in space.patterns
    )
    return placements * tuned * prod(_ways(space, node, whole, "space") for node in settings)


def _ways(space: BoundSpace, node: Any, extent: _Extent, default: Scope) -> int:
    if isinstance(node, tuple):
        return prod(_ways(space, item, extent, default) for item in node)
    if isinstance(node, Tree):
        extent = _covered(space, node, extent)
        return prod(
            _where_ways(space, child, extent)
            if key == "where"
            else _ways(space, child, extent, default)
            for key, child in node.entries
        )
    if not isinstance(node, Choice | Range | Subset):
        return 1
    parts = extent.instances(node.per or default)
    return prod(_domain_ways(space, node, part, default) for part in parts)


def _domain_ways(space: BoundSpace, node: Any, extent: _Extent, default: Scope) -> int:
    if isinstance(node, Choice):
        return sum(_ways(space, item, extent, default) for item in node.items)
    if isinstance(node, Subset):
        return 2 ** len(node.items or ())
    return len(node.grid) if node.grid is not None else 1


def _where_ways(space: BoundSpace, node: Any, extent: _Extent) -> int:
    if isinstance(node, Subset):
        return 2 ** len(extent.groups)
    if isinstance(node, Choice):
        return sum(_where_ways(space, item, extent) for item in node.items)
    return _ways(space, node, extent, "space")


def _covered(space: BoundSpace, tree: Tree, extent: _Extent) -> _Extent:
    """The part of the extent where a placement with a plain `where` stands."""
    where = tree.get("where", "all")
    if where == "all" or not isinstance(where, tuple):
        return extent
    kept = []
    for name, layers in extent.groups:
        here = [
            i for i in layers if covers(where, Here(name, i), space.names, space.shape, "where")
        ]
        if here:
            kept.append((name, tuple(here)))
    return _Extent(tuple(kept), extent.scope)
