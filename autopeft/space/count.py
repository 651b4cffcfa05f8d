"""In how many ways the decisions of a space can be taken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from autopeft.space.domain import Choice, Range, Scope, Subset, Tree
from autopeft.space.form import Form
from autopeft.space.ground import Ground, Here
from autopeft.space.layers import Groups


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


def count_assignments(form: Form, ground: Ground) -> int:
    """In how many ways the domains can be filled; a continuous range counts once."""
    whole = _Extent((("", (0,)),), "space")
    tuned = 2 ** len(ground.names) if isinstance(form.layers.tuned, Subset) else 1
    settings = (form.train, form.backbone, form.budget)
    placements = sum(
        _ways(ground, form.place, _Extent(groups, "space"), "group")
        for groups in ground.groups.values()
    )
    return placements * tuned * _ways(ground, settings, whole, "space")


def _ways(ground: Ground, node: Any, extent: _Extent, default: Scope) -> int:
    if isinstance(node, tuple):
        return prod(_ways(ground, item, extent, default) for item in node)
    if isinstance(node, Tree):
        extent = _covered(ground, node, extent)
        return prod(
            _where_ways(ground, child, extent)
            if key == "where"
            else _ways(ground, child, extent, default)
            for key, child in node.entries
        )
    if not isinstance(node, Choice | Range | Subset):
        return 1
    parts = extent.instances(node.per or default)
    return prod(_domain_ways(ground, node, part, default) for part in parts)


def _domain_ways(ground: Ground, node: Any, extent: _Extent, default: Scope) -> int:
    if isinstance(node, Choice):
        return sum(_ways(ground, item, extent, default) for item in node.items)
    if isinstance(node, Subset):
        return 2 ** len(node.items or ())
    return len(node.grid) if node.grid is not None else 1


def _where_ways(ground: Ground, node: Any, extent: _Extent) -> int:
    if isinstance(node, Subset):
        return 2 ** len(extent.groups)
    if isinstance(node, Choice):
        return sum(_where_ways(ground, item, extent) for item in node.items)
    return _ways(ground, node, extent, "space")


def _covered(ground: Ground, tree: Tree, extent: _Extent) -> _Extent:
    """The part of the extent where a placement with a plain `where` stands."""
    where = tree.get("where", "all")
    if where == "all" or not isinstance(where, tuple):
        return extent
    kept = []
    for name, layers in extent.groups:
        here = [i for i in layers if ground.covers(where, Here(name, i), "where")]
        if here:
            kept.append((name, tuple(here)))
    return _Extent(tuple(kept), extent.scope)
