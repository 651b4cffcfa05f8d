"""`Ground`: the layers of a backbone in the groups of a space."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from autopeft.core.errors import SpaceError
from autopeft.core.shape import Shape
from autopeft.space.domain import Scope, Tree, nodes
from autopeft.space.form import Form
from autopeft.space.layers import (
    Groups,
    group_names,
    is_selector,
    known_group,
    partition,
    select_all,
)


@dataclass(frozen=True)
class Here:
    """Where a decision is asked for: a group, a layer in it, or the space as a whole."""

    group: str = ""
    layer: int = -1
    default: Scope = "space"

    def suffix(self, scope: Scope | None) -> str:
        """What tells the decision of this group or layer from that of another."""
        scope = scope or self.default
        return {"space": "", "group": f"@{self.group}", "layer": f"@layer{self.layer}"}[scope]


SPACE = Here()


@dataclass(frozen=True)
class Ground:
    """The layers of a backbone in the groups of a space.

    Attributes:
        shape: the backbone.
        names: of the groups.
        groups: with their layers, by each pattern that a point can choose.
    """

    shape: Shape
    names: tuple[str, ...]
    groups: Mapping[str, Groups]

    @classmethod
    def of(cls, form: Form, shape: Shape) -> Ground:
        """The ground of a space on a backbone.

        Raises:
            SpaceError: groups, `layers.tuned` or a `where` that the backbone does not have.
        """
        layers = form.layers
        groups = dict(layers.groups.entries) if isinstance(layers.groups, Tree) else layers.groups
        patterns = [each for each in nodes(layers.pattern) if isinstance(each, str)]
        parts = {pattern: partition(groups, pattern, shape) for pattern in patterns}
        ground = cls(shape, group_names(groups, shape), parts)
        for name in layers.tuned if isinstance(layers.tuned, tuple) else ():
            known_group(name, ground.names, "layers.tuned")
        for i, entry in enumerate(form.place):
            ground._check_where(entry, f"place[{i}].where")
        return ground

    def heres(self, pattern: str) -> list[Here]:
        """Every layer with its group under a pattern, in the order of the groups."""
        groups = self.groups[pattern]
        return [Here(name, layer, "group") for name, layers in groups for layer in layers]

    def covers(self, where: Any, here: Here, path: str) -> bool:
        """Whether a plain `where` (all, names of groups, or layers) holds for a layer."""
        if where == "all":
            return True
        strangers = [item for item in where if item not in self.names and not is_selector(item)]
        if strangers or any(item in self.names for item in where):
            groups = [known_group(item, self.names, path) for item in [*strangers, *where]]
            return here.group in groups
        return here.layer in select_all(where, self.shape, path)

    def _check_where(self, entry: Any, path: str) -> None:
        """Refuses a plain `where` of an entry of `place` that holds for no layer of any group."""
        heres = [here for pattern in self.groups for here in self.heres(pattern)]
        trees = [node for node in nodes(entry) if isinstance(node, Tree)]
        wheres = dict.fromkeys(node for tree in trees for node in nodes(tree.get("where")))
        for where in wheres:
            if isinstance(where, tuple) and not any(self.covers(where, h, path) for h in heres):
                raise SpaceError(f"covers no layer of any group, got {list(where)}", path)
