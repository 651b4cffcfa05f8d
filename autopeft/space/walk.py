"""One pass over a space that asks for every decision as it meets it, and yields placements."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from autopeft.core.errors import SpaceError
from autopeft.core.methods import DECLARATIONS
from autopeft.core.shape import Shape
from autopeft.space.dimension import Dimension
from autopeft.space.domain import Choice, Range, Scope, Subset, Tree
from autopeft.space.layers import Groups, is_selector, known_group, select_all

Choose = Callable[[Dimension], Any]


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
class Raw:
    """A placement of one method on one layer, its size perhaps still `fill`."""

    layer: int
    method: str
    options: Mapping[str, Any]

    @property
    def complete(self) -> Mapping[str, Any]:
        """All options, those that follow from others included."""
        return DECLARATIONS[self.method].completed(self.options)


@dataclass
class Walk:
    """Evaluates nodes; a decision met twice keeps its value.

    Attributes:
        choose: gives the recorded value of a decision.
        chosen: every decision met so far, by name.
    """

    shape: Shape
    names: tuple[str, ...]
    choose: Choose
    chosen: dict[str, Any] = field(default_factory=dict)

    def pick(self, dimension: Dimension) -> Any:
        """The value of a decision."""
        if dimension.name not in self.chosen:
            self.chosen[dimension.name] = self.choose(dimension)
        return self.chosen[dimension.name]

    def value(self, node: Any, path: str, here: Here = SPACE) -> Any:
        """The node with every decision taken; trees become dicts."""
        if isinstance(node, Choice):
            item, inner = self.item(node, path, here)
            return self.value(item, inner, here)
        if isinstance(node, Range):
            return self.pick(range_dimension(node, path, here))
        if isinstance(node, Subset):
            return self.members(node, path, here)
        if isinstance(node, Tree):
            return {key: self.value(child, f"{path}.{key}", here) for key, child in node.entries}
        return node

    def item(self, node: Choice, path: str, here: Here) -> tuple[Any, str]:
        """The chosen item of a choice and the path of what stands in it."""
        dimension = choice_dimension(node, path, here)
        index = dimension.index(self.pick(dimension))
        return node.items[index], f"{path}[{index}]"

    def members(self, node: Subset, path: str, here: Here) -> tuple[Any, ...]:
        """The chosen items of a subset."""
        return tuple(
            item
            for item in node.items or self.names
            if self.pick(member_dimension(node, item, path, here))
        )

    def stands(self, node: Any, path: str, here: Here) -> bool:
        """Whether a `where` holds for a layer."""
        if isinstance(node, Choice):
            item, inner = self.item(node, path, Here())
            return self.stands(item, inner, here)
        if isinstance(node, Subset):
            return bool(self.pick(member_dimension(node, here.group, path, here)))
        if isinstance(node, Tree):
            ((end, n),) = node.entries
            count = self.value(n, f"{path}.{end}", Here())
            n_layers = len(self.shape.layers)
            return here.layer < count if end == "first" else here.layer >= n_layers - count
        return covers(node, here, self.names, self.shape, path)

    def placements(self, entry: Any, path: str, here: Here) -> list[Raw]:
        """What an entry of `place` puts on one layer."""
        if isinstance(entry, Choice):
            items, inner = self.item(entry, path, here)
            return [
                raw
                for i, item in enumerate(items)
                for raw in self.placements(item, f"{inner}.{i}", here)
            ]
        method = entry["method"]
        if not self.stands(entry.get("where", "all"), f"{path}.{method}.where", here):
            return []
        options = self.options(entry, f"{path}.{method}", here)
        return [] if options is None else [Raw(here.layer, method, options)]

    def options(self, entry: Tree, path: str, here: Here) -> dict[str, Any] | None:
        """All options of a placement with defaults filled in; None where it is absent."""
        declaration = DECLARATIONS[entry["method"]]
        size, kinds, options = declaration.size_option(), declaration.options(), dict[str, Any]()
        for key, node in option_nodes(entry):
            options[key] = kinds[key].canonical(self.value(node, f"{path}.{key}", here))
            if (key == size and options[key] == 0) or options[key] == ():
                return None
        return options


@lru_cache(maxsize=1024)
def option_nodes(entry: Tree) -> list[tuple[str, Any]]:
    """The options of a placement, defaults filled in, in the order in which they are decided.

    Those that can make the placement absent come first: lists that can be empty, then the size.
    """
    declaration = DECLARATIONS[entry["method"]]
    size = declaration.size_option()
    nodes = [(key, entry.get(key, kind.default)) for key, kind in declaration.options().items()]
    return sorted(nodes, key=lambda item: (not can_be_empty(item[1]), item[0] != size))


def can_be_empty(node: Any) -> bool:
    """Whether an option can come out as an empty list."""
    if isinstance(node, Choice):
        return any(can_be_empty(item) for item in node.items)
    return isinstance(node, Subset)


@lru_cache(maxsize=4096)
def choice_dimension(node: Choice, path: str, here: Here) -> Dimension:
    """The decision of a choice."""
    return Dimension.of(path + here.suffix(node.per), node, node.per or here.default)


@lru_cache(maxsize=4096)
def range_dimension(node: Range, path: str, here: Here) -> Dimension:
    """The decision of a range."""
    return Dimension.of(path + here.suffix(node.per), node, node.per or here.default)


@lru_cache(maxsize=4096)
def member_dimension(node: Subset, item: Any, path: str, here: Here) -> Dimension:
    """The decision about one item of a subset; of one group for a subset of the groups."""
    if node.items is None:
        return Dimension.switch(f"{path}@{item}", "group")
    return Dimension.switch(f"{path}.{item}{here.suffix(node.per)}", node.per or here.default)


def covers(node: Any, here: Here, names: tuple[str, ...], shape: Shape, path: str) -> bool:
    """Whether a plain `where` (all, names of groups, or layers) holds for a layer."""
    if node == "all":
        return True
    strangers = [item for item in node if item not in names and not is_selector(item)]
    if strangers or any(item in names for item in node):
        return here.group in [known_group(item, names, path) for item in [*strangers, *node]]
    return here.layer in select_all(node, shape, path)


def check_where(node: Any, heres: Sequence[Here], walk: Walk, path: str) -> None:
    """Checks every plain `where` of an entry of `place` against a backbone.

    Raises:
        SpaceError: it names no group and no layer, or none that stands in a group.
    """
    if isinstance(node, Choice):
        for item in node.items:
            for part in item:
                check_where(part, heres, walk, path)
        return
    for plain in plain_wheres(node.get("where", "all")):
        at = f"{path}.where"
        if not any(covers(plain, here, walk.names, walk.shape, at) for here in heres):
            raise SpaceError(f"covers no layer of any group, got {list(plain)}", at)


def plain_wheres(node: Any) -> Iterator[Any]:
    """Every `where` without a domain that a node can come out as."""
    if isinstance(node, Choice):
        for item in node.items:
            yield from plain_wheres(item)
    elif not isinstance(node, Subset | Tree):
        yield node


def group_layers(groups: Groups) -> list[Here]:
    """Every layer with its group, in the order of the groups."""
    return [Here(name, layer, "group") for name, layers in groups for layer in layers]
