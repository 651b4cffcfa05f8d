"""One pass over a space that asks for every decision as it meets it, and yields placements."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from autopeft.core.config import Placement
from autopeft.core.methods import DECLARATIONS
from autopeft.space.decisions import (
    choice_dimension,
    member_dimension,
    option_nodes,
    range_dimension,
)
from autopeft.space.dimension import Dimension
from autopeft.space.domain import Choice, Range, Subset, Tree
from autopeft.space.ground import SPACE, Ground, Here

Choose = Callable[[Dimension], Any]


@dataclass(frozen=True)
class Raw:
    """A placement of one method on one layer, its size perhaps still `fill`."""

    layer: int
    method: str
    options: Mapping[str, Any]

    @cached_property
    def placement(self) -> Placement:
        """As a configuration holds it."""
        said = DECLARATIONS[self.method].said(self.options)
        return Placement.of(self.method, [self.layer], said)


@dataclass
class Walk:
    """Evaluates nodes; a decision met twice keeps its value.

    Attributes:
        choose: gives the recorded value of a decision.
        chosen: every decision met so far, by name.
    """

    ground: Ground
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
            item, inner = self._item(node, path, here)
            return self.value(item, inner, here)
        if isinstance(node, Range):
            return self.pick(range_dimension(node, path, here))
        if isinstance(node, Subset):
            dimensions = {i: member_dimension(node, i, path, here) for i in node.items or ()}
            return tuple(item for item, dimension in dimensions.items() if self.pick(dimension))
        if isinstance(node, Tree):
            return {key: self.value(child, f"{path}.{key}", here) for key, child in node.entries}
        return node

    def placements(self, entry: Any, path: str, here: Here) -> list[Raw]:
        """What an entry of `place` puts on one layer."""
        if isinstance(entry, Choice):
            items, inner = self._item(entry, path, here)
            return [
                raw
                for i, item in enumerate(items)
                for raw in self.placements(item, f"{inner}.{i}", here)
            ]
        method = entry["method"]
        if not self._stands(entry.get("where", "all"), f"{path}.{method}.where", here):
            return []
        options = self._options(entry, f"{path}.{method}", here)
        return [] if options is None else [Raw(here.layer, method, options)]

    def _item(self, node: Choice, path: str, here: Here) -> tuple[Any, str]:
        """The chosen item of a choice and the path of what stands in it."""
        dimension = choice_dimension(node, path, here)
        index = dimension.index(self.pick(dimension))
        return node.items[index], f"{path}[{index}]"

    def _stands(self, node: Any, path: str, here: Here) -> bool:
        """Whether a `where` holds for a layer."""
        if isinstance(node, Choice):
            item, inner = self._item(node, path, SPACE)
            return self._stands(item, inner, here)
        if isinstance(node, Subset):
            return bool(self.pick(member_dimension(node, here.group, path, here)))
        if isinstance(node, Tree):
            ((end, n),) = node.entries
            count = self.value(n, f"{path}.{end}")
            n_layers = len(self.ground.shape.layers)
            return here.layer < count if end == "first" else here.layer >= n_layers - count
        return self.ground.covers(node, here, path)

    def _options(self, entry: Tree, path: str, here: Here) -> dict[str, Any] | None:
        """All options of a placement with defaults filled in; None where it is absent."""
        declaration = DECLARATIONS[entry["method"]]
        size, kinds, options = declaration.size_option(), declaration.options(), dict[str, Any]()
        for key, node in option_nodes(entry):
            value = self.value(node, f"{path}.{key}", here)
            options[key] = kinds[key].canonical(value) if key in kinds else value
            if (key == size and options[key] == 0) or options[key] == ():
                return None
        return options
