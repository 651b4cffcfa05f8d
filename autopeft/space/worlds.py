"""The ways to take the decisions of a space, apart from one another as far as possible.

A *track* is a part of `place` whose entries must be looked at together. A *world* takes the
decisions of a track on which several groups depend. Inside a world each group follows one *plan*,
which says for each of its layers what can stand there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import islice
from typing import TYPE_CHECKING, Any

from autopeft.core.config import freeze
from autopeft.core.errors import SpaceError
from autopeft.space.budget import fill, is_fill
from autopeft.space.count import all_dimensions
from autopeft.space.dimension import Dimension
from autopeft.space.domain import Choice, Subset, Tree, is_open
from autopeft.space.layers import Groups
from autopeft.space.walk import Here, Raw, Walk, option_nodes

if TYPE_CHECKING:
    from autopeft.space.bound import BoundSpace

Letter = tuple[Any, ...]
Plan = tuple[frozenset[Letter], ...]
Ways = Callable[[Walk], Any]

N_WORLDS = 400_000
N_PLANS = 20_000
"""How many worlds of a space, and plans of a group, are gone through at most."""


@dataclass(frozen=True)
class World:
    """One way to take the shared decisions.

    Attributes:
        shared: the decisions by name.
        groups: the names and layers of the groups.
        tuned: the layers that are tuned, if that is among the shared decisions, else all.
    """

    shared: Mapping[str, Any]
    groups: Groups
    tuned: tuple[int, ...]


Track = tuple[int, ...]


def tracks(space: BoundSpace) -> list[Track]:
    """The entries of `place` in parts that do not depend on one another."""
    document = space.space
    coupled = space.has_fill or len(space.patterns) > 1 or isinstance(document.layers.tuned, Subset)
    if coupled:
        return [tuple(range(len(document.place)))]
    parts: list[list[int]] = []
    for i in range(len(document.place)):
        joined = [i]
        for part in [p for p in parts if any(collide(document.place, i, j) for j in p)]:
            parts.remove(part)
            joined = part + joined
        parts.append(joined)
    return [tuple(sorted(part)) for part in parts]


def collide(place: Sequence[Any], i: int, j: int) -> bool:
    """Whether two entries can put equal placements on a layer."""
    return any(_can_equal(a, b) for a in _leaves(place[i]) for b in _leaves(place[j]))


def _leaves(entry: Any) -> Iterator[Tree]:
    if isinstance(entry, Choice):
        for items in entry.items:
            for item in items:
                yield from _leaves(item)
    else:
        yield entry


def _can_equal(a: Tree, b: Tree) -> bool:
    if a["method"] != b["method"]:
        return False
    pairs = zip(sorted(option_nodes(a), key=_name), sorted(option_nodes(b), key=_name), strict=True)
    return not any(x != y and not is_open(x) and not is_open(y) for (_, x), (_, y) in pairs)


def _name(item: tuple[str, Any]) -> str:
    return item[0]


def outcomes(run: Ways, walk: Callable[[Callable[[Dimension], Any]], Walk]) -> Iterator[Any]:
    """Every result of `run`, one for each way to take the decisions that it meets."""
    script: list[int] = []
    while True:
        sizes: list[int] = []
        yield run(walk(_scripted(script, sizes)))
        script = script + [0] * (len(sizes) - len(script))
        while script and script[-1] + 1 == sizes[len(script) - 1]:
            script.pop()
        if not script:
            return
        script[-1] += 1


def _scripted(script: Sequence[int], sizes: list[int]) -> Callable[[Dimension], Any]:
    """Takes the decisions that a script of indices states, then the first value of each."""

    def choose(dimension: Dimension) -> Any:
        values = dimension.values or (dimension.from_unit(0.0),)
        sizes.append(len(values))
        at = len(sizes) - 1
        return values[script[at] if at < len(script) else 0]

    return choose


def belongs(name: str, track: Track) -> bool:
    """Whether a decision of this name is taken inside an entry of the track."""
    head = re.split(r"[.\[@]", name, maxsplit=1)[0]
    return head.isdigit() and int(head) in track


def worlds(space: BoundSpace, track: Track) -> Iterator[World]:
    """Every world of a track.

    Raises:
        SpaceError: there are too many to go through.
    """
    for shared in _shared_choices(space, track):
        pattern = shared.get("layers.pattern", space.patterns[0])
        yield World(shared, space.partition(pattern), _tuned_layers(space, shared, pattern))


def _shared_choices(space: BoundSpace, track: Track) -> Iterator[dict[str, Any]]:
    """Every way to take the shared decisions of a track.

    Raises:
        SpaceError: there are too many to go through.
    """
    dimensions = [
        d
        for d in all_dimensions(space)
        if d.shared and (d.name.startswith(("layers.", "budget.")) or belongs(d.name, track))
    ]
    total = 1
    for dimension in dimensions:
        total *= len(dimension.values or (0,))
    if total > N_WORLDS:
        raise SpaceError(
            f"{total} combinations of decisions for the whole space are too many to count",
            space.space.name,
        )

    def take(walk: Walk) -> dict[str, Any]:
        return {dimension.name: walk.pick(dimension) for dimension in dimensions}

    yield from outcomes(take, space.walk)


def _tuned_layers(space: BoundSpace, shared: Mapping[str, Any], pattern: str) -> tuple[int, ...]:
    """The layers among which a budget is divided; only asked for where there is one."""
    walk = Walk(space.shape, space.names, lambda d: shared.get(d.name, True), dict(shared))
    return tuple(
        sorted(
            layer
            for name, layers in space.partition(pattern)
            for layer in layers
            if space.is_tuned(walk, Here(name, layer, "group"))
        )
    )


def plans(
    space: BoundSpace, track: Track, world: World, name: str, layers: tuple[int, ...]
) -> tuple[Plan, ...]:
    """Every plan of one group in a world.

    Raises:
        SpaceError: there are too many to go through.
    """
    heres = [Here(name, layer, "group") for layer in layers]

    def walk(choose: Callable[[Dimension], Any]) -> Walk:
        return Walk(space.shape, space.names, choose, dict(world.shared))

    def plan(outer: Walk) -> Plan:
        return tuple(_letters(space, track, here, outer, world.tuned) for here in heres)

    found = list(islice(outcomes(plan, walk), N_PLANS + 1))
    if len(found) > N_PLANS:
        raise SpaceError(
            f"group {name} has more than {N_PLANS} plans, too many to count", space.space.name
        )
    return tuple(dict.fromkeys(found))


def _letters(
    space: BoundSpace, track: Track, here: Here, outer: Walk, tuned: tuple[int, ...]
) -> frozenset[Letter]:
    """The letters that one layer can show once the decisions of its group are taken."""

    def inner(choose: Callable[[Dimension], Any]) -> Walk:
        def route(dimension: Dimension) -> Any:
            return choose(dimension) if dimension.scope == "layer" else outer.pick(dimension)

        return Walk(space.shape, space.names, route)

    def letter(walk: Walk) -> Letter:
        if not space.is_tuned(walk, here):
            return ()
        return _letter(space, space.layer_placements(walk, here, track), outer, tuned)

    return frozenset(outcomes(letter, inner))


def _letter(space: BoundSpace, raws: list[Raw], outer: Walk, tuned: tuple[int, ...]) -> Letter:
    if any(is_fill(raw) for raw in raws):
        budget = {k: outer.value(v, f"budget.{k}") for k, v in space.space.budget.entries}
        raws = _filled(space, raws, budget, tuned)
    return tuple(sorted(((raw.method, freeze(raw.complete)) for raw in raws), key=repr))


def _filled(
    space: BoundSpace, raws: list[Raw], budget: Mapping[str, Any], tuned: tuple[int, ...]
) -> list[Raw]:
    """Sizes of `fill` as numbers; as shares of the budget where no backbone says the numbers."""
    if space.cost is not None:
        return fill(raws, tuned, budget, space.shape, space.cost)
    rank, n = tuned.index(raws[0].layer), len(tuned)
    part = {
        "uniform": Fraction(1, n),
        "increasing": Fraction(2 * (rank + 1), n * (n + 1)),
        "decreasing": Fraction(2 * (n - rank), n * (n + 1)),
    }[budget.get("allocation", "uniform")]
    share = f"{budget['trainable_params']} * {part}"
    return [
        replace(raw, options={**raw.options, "share": share}) if is_fill(raw) else raw
        for raw in raws
    ]
