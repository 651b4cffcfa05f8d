"""From a configuration back to a point of a space: unification with backtracking."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from autopeft.core.config import PeftConfig, freeze
from autopeft.core.methods import DECLARATIONS
from autopeft.space.dimension import Dimension
from autopeft.space.domain import SCOPES, Choice, Range, Scope, Subset, Tree
from autopeft.space.layers import Groups
from autopeft.space.walk import (
    SPACE,
    Choose,
    Here,
    can_be_empty,
    choice_dimension,
    covers,
    member_dimension,
    option_nodes,
    range_dimension,
)

if TYPE_CHECKING:
    from autopeft.space.bound import BoundSpace

Found = tuple[tuple[str, Mapping[str, Any]], ...]


@dataclass(frozen=True)
class Bindings:
    """Decisions taken so far, by scope and name."""

    taken: Mapping[Scope, Mapping[str, Any]]

    @classmethod
    def none(cls) -> Bindings:
        """No decision taken."""
        return cls({scope: {} for scope in SCOPES})

    def bind(self, dimension: Dimension, value: Any) -> Iterator[Bindings]:
        """These bindings and one more, unless the decision was taken otherwise."""
        known = self.taken[dimension.scope]
        if dimension.name not in known:
            more = {**known, dimension.name: value}
            yield Bindings({**self.taken, dimension.scope: more})
        elif known[dimension.name] == value:
            yield self

    def seen_from(self, *scopes: Scope) -> Hashable:
        """The decisions of some scopes, to compare."""
        return tuple(frozenset(self.taken[scope].items()) for scope in scopes)

    @property
    def params(self) -> dict[str, Any]:
        """All decisions by name."""
        return {name: value for taken in self.taken.values() for name, value in taken.items()}


def match(space: BoundSpace, config: PeftConfig) -> dict[str, Any] | None:
    """A point of `space` that stands for `config`, the first in the order of the document."""
    for bindings in _Matcher(space).solutions(config):
        walk = space.walk(_completed(bindings.params))
        if space.follow(walk) == config:
            return walk.chosen
    return None


def _completed(params: Mapping[str, Any]) -> Choose:
    """Takes the decisions of a match; what it leaves open belongs to absent placements."""

    def choose(dimension: Dimension) -> Any:
        return params.get(dimension.name, dimension.from_unit(0.0))

    return choose


class _Matcher:
    def __init__(self, space: BoundSpace) -> None:
        self.space = space

    def solutions(self, config: PeftConfig) -> Iterator[Bindings]:
        found: dict[int, Found] = {
            layer: tuple(
                (p.method, dict(p.options)) for p in config.placements if layer in p.layers
            )
            for layer in config.layers
        }
        space = self.space.space
        start = Bindings.none()
        for bound in self.settings(space.train, dict(config.train), "train", start):
            for bound_ in self.settings(space.backbone, dict(config.backbone), "backbone", bound):
                for budgeted in self.budget(bound_):
                    for pattern in self.space.patterns:
                        groups = self.space.partition(pattern)
                        if set(found) <= {layer for _, layers in groups for layer in layers}:
                            for chosen in self.pattern(pattern, budgeted):
                                yield from self.groups(
                                    _occupied_first(groups, found), found, chosen
                                )

    def pattern(self, pattern: str, bound: Bindings) -> Iterator[Bindings]:
        yield from self.value(
            self.space.space.layers.pattern, pattern, "layers.pattern", SPACE, bound
        )

    def settings(self, node: Any, value: Any, path: str, bound: Bindings) -> Iterator[Bindings]:
        yield from self.value(node, value, path, SPACE, bound)

    def budget(self, bound: Bindings) -> Iterator[Bindings]:
        yield from self.anything(list(self.space.space.budget.entries), bound)

    def anything(self, entries: list[tuple[str, Any]], bound: Bindings) -> Iterator[Bindings]:
        if not entries:
            yield bound
            return
        (key, node), rest = entries[0], entries[1:]
        for value in _values(node):
            for more in self.value(node, value, f"budget.{key}", SPACE, bound):
                yield from self.anything(rest, more)

    def groups(
        self, groups: Groups, found: Mapping[int, Found], bound: Bindings
    ) -> Iterator[Bindings]:
        """Solutions of all groups, one for each that the rest of the space can tell apart."""
        if not groups:
            yield bound
            return
        (name, layers), rest = groups[0], groups[1:]
        heres = [Here(name, layer, "group") for layer in layers]
        seen = set()
        for one in self.group(heres, found, bound):
            key = one.seen_from("space"), self.shown(heres, one)
            if key not in seen:
                seen.add(key)
                yield from self.groups(rest, found, one)

    def shown(self, heres: Sequence[Here], bound: Bindings) -> Hashable:
        """What a budget sees of a group; without one, all solutions look alike."""
        if not self.space.has_fill:
            return None
        return tuple(self.letter(here, bound) for here in heres)

    def letter(self, here: Here, bound: Bindings) -> Hashable:
        """What the bindings put on a layer, sizes of `fill` still open."""
        raws = self.space.layer_placements(self.space.walk(_completed(bound.params)), here)
        return tuple(sorted(((raw.method, freeze(raw.complete)) for raw in raws), key=repr))

    def group(
        self, heres: Sequence[Here], found: Mapping[int, Found], bound: Bindings
    ) -> Iterator[Bindings]:
        """Solutions of one group."""
        tuned = self.space.space.layers.tuned
        empty = not any(found.get(here.layer) for here in heres)
        if isinstance(tuned, Subset):
            dimension = self.space.tuned_dimension(heres[0].group)
            if empty:
                yield from bound.bind(dimension, False)
            for one in bound.bind(dimension, True):
                yield from self.layers(heres, found, one)
        elif tuned == "all" or heres[0].group in tuned:
            yield from self.layers(heres, found, bound)
        elif empty:
            yield bound

    def layers(
        self, heres: Sequence[Here], found: Mapping[int, Found], bound: Bindings
    ) -> Iterator[Bindings]:
        """Solutions of the layers of a group, one for each that the other layers can tell apart."""
        if not heres:
            yield bound
            return
        seen = set()
        for one in self.layer(heres[0], found.get(heres[0].layer, ()), bound):
            key = one.seen_from("space", "group"), self.shown(heres[:1], one)
            if key not in seen:
                seen.add(key)
                yield from self.layers(heres[1:], found, one)

    def layer(self, here: Here, found: Found, bound: Bindings) -> Iterator[Bindings]:
        """Solutions of one layer that really show what was found there."""
        wanted = tuple(sorted(((method, freeze(o)) for method, o in found), key=repr))
        entries = [(str(i), entry) for i, entry in enumerate(self.space.space.place)]
        for rest, one in self.entries(entries, here, found, bound):
            if not rest and (self.space.has_fill or self.letter(here, one) == wanted):
                yield one

    def entries(
        self, entries: Sequence[tuple[str, Any]], here: Here, left: Found, bound: Bindings
    ) -> Iterator[tuple[Found, Bindings]]:
        if not entries:
            yield left, bound
            return
        path, entry = entries[0]
        for rest, one in self.entry(entry, path, here, left, bound):
            yield from self.entries(entries[1:], here, rest, one)

    def entry(
        self, entry: Any, path: str, here: Here, left: Found, bound: Bindings
    ) -> Iterator[tuple[Found, Bindings]]:
        if isinstance(entry, Choice):
            dimension = choice_dimension(entry, path, here)
            for i, items in enumerate(entry.items):
                inner = [(f"{path}[{i}].{j}", item) for j, item in enumerate(items)]
                for one in bound.bind(dimension, (dimension.values or ())[i]):
                    yield from self.entries(inner, here, left, one)
            return
        method = entry["method"]
        where, path = entry.get("where", "all"), f"{path}.{method}"
        for i, (name, options) in enumerate(left):
            if name == method:
                for one in self.stands(where, f"{path}.where", here, True, bound):
                    for two in self.options(option_nodes(entry), options, path, here, one):
                        yield (*left[:i], *left[i + 1 :]), two
        for one in self.stands(where, f"{path}.where", here, False, bound):
            yield left, one
        for one in self.stands(where, f"{path}.where", here, True, bound):
            for two in self.absent(entry, path, here, one):
                yield left, two
            if self.space.cost is not None:
                for two in self.idle(entry, path, here, one):
                    yield left, two

    def options(
        self,
        nodes: Sequence[tuple[str, Any]],
        options: Mapping[str, Any],
        path: str,
        here: Here,
        bound: Bindings,
    ) -> Iterator[Bindings]:
        if not nodes:
            yield bound
            return
        key, node = nodes[0]
        for one in self.value(node, options[key], f"{path}.{key}", here, bound):
            yield from self.options(nodes[1:], options, path, here, one)

    def absent(self, entry: Tree, path: str, here: Here, bound: Bindings) -> Iterator[Bindings]:
        for key, node in option_nodes(entry):
            if can_be_empty(node):
                yield from self.value(node, (), f"{path}.{key}", here, bound)
            elif key == DECLARATIONS[entry["method"]].size_option():
                yield from self.value(node, 0, f"{path}.{key}", here, bound)

    def idle(self, entry: Tree, path: str, here: Here, bound: Bindings) -> Iterator[Bindings]:
        """A placement that stands there and gets nothing, from the backbone or from a budget.

        What gets nothing with some sites gets nothing with all of them.
        """
        lists = [(key, node) for key, node in option_nodes(entry) if can_be_empty(node)]
        yield from self.options(lists, {key: _all(node) for key, node in lists}, path, here, bound)

    def stands(
        self, node: Any, path: str, here: Here, want: bool, bound: Bindings
    ) -> Iterator[Bindings]:
        if isinstance(node, Choice):
            dimension = choice_dimension(node, path, SPACE)
            for i, item in enumerate(node.items):
                for one in bound.bind(dimension, (dimension.values or ())[i]):
                    yield from self.stands(item, f"{path}[{i}]", here, want, one)
        elif isinstance(node, Subset):
            yield from bound.bind(member_dimension(node, here.group, path, here), want)
        elif isinstance(node, Tree):
            ((end, count),) = node.entries
            n = len(self.space.shape.layers)
            for value in _values(count):
                if (here.layer < value if end == "first" else here.layer >= n - value) == want:
                    yield from self.value(count, value, f"{path}.{end}", SPACE, bound)
        elif covers(node, here, self.space.names, self.space.shape, path) == want:
            yield bound

    def value(
        self, node: Any, value: Any, path: str, here: Here, bound: Bindings
    ) -> Iterator[Bindings]:
        if isinstance(node, Choice):
            dimension = choice_dimension(node, path, here)
            for i, item in enumerate(node.items):
                for one in bound.bind(dimension, (dimension.values or ())[i]):
                    yield from self.value(item, value, f"{path}[{i}]", here, one)
        elif isinstance(node, Range):
            if value in node:
                yield from bound.bind(range_dimension(node, path, here), value)
        elif isinstance(node, Subset):
            if isinstance(value, tuple) and set(value) <= set(node.items or ()):
                yield from self.members(list(node.items or ()), node, value, path, here, bound)
        elif isinstance(node, Tree):
            if isinstance(value, Mapping) and set(value) == set(node):
                yield from self.options(list(node.entries), value, path, here, bound)
        elif node in ("fill", None) or (type(node) is type(value) and node == value):
            yield bound

    def members(
        self,
        items: list[Any],
        node: Subset,
        value: tuple[Any, ...],
        path: str,
        here: Here,
        bound: Bindings,
    ) -> Iterator[Bindings]:
        if not items:
            yield bound
            return
        dimension = member_dimension(node, items[0], path, here)
        for one in bound.bind(dimension, items[0] in value):
            yield from self.members(items[1:], node, value, path, here, one)


def _values(node: Any) -> tuple[Any, ...]:
    """Every value that a node without a continuous range can come out as."""
    if isinstance(node, Choice):
        return tuple(dict.fromkeys(value for item in node.items for value in _values(item)))
    return node.grid or () if isinstance(node, Range) else (node,)


def _all(node: Any) -> tuple[Any, ...]:
    """The longest list that an option can come out as."""
    if isinstance(node, Choice):
        return max((_all(item) for item in node.items), key=len)
    return node.items or () if isinstance(node, Subset) else node


def _occupied_first(groups: Groups, found: Mapping[int, Found]) -> Groups:
    """Groups with placements first: what they show decides what the empty ones can be."""
    return tuple(sorted(groups, key=lambda group: not any(i in found for i in group[1])))
