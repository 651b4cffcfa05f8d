"""The cheapest and the dearest configuration of a space, by an additive cost."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from autopeft.core.config import PeftConfig
from autopeft.space.budget import Cost, fill, is_fill
from autopeft.space.dimension import Dimension
from autopeft.space.domain import Subset
from autopeft.space.walk import Here, Walk
from autopeft.space.worlds import Track, World, belongs, outcomes, tracks, worlds

if TYPE_CHECKING:
    from autopeft.space.bound import BoundSpace

Params = Mapping[str, Any]


@dataclass(frozen=True)
class Extremes:
    """A part of a space between its bounds.

    Attributes:
        least: cost and point of the cheapest configuration, perhaps the empty one.
        least_placed: the same with at least one placement; None where there is none.
        most: cost and point of the dearest configuration.
    """

    least: tuple[int, Params]
    least_placed: tuple[int, Params] | None
    most: tuple[int, Params]


def extremes(space: BoundSpace, cost: Cost) -> tuple[PeftConfig, PeftConfig]:
    """The cheapest configuration with at least one placement, and the dearest.

    Where the space knows only the empty configuration, both are empty.

    Args:
        space: a space on a backbone with its numbers.
        cost: trainable elements of one placement on one layer.
    """
    whole = Extremes((0, {}), None, (0, {}))
    for track in tracks(space):
        whole = _sum(whole, _best_world(_track_extremes(space, track, cost)))
    placed = whole.least_placed or whole.least
    return _resolved(space, placed[1]), _resolved(space, whole.most[1])


def _resolved(space: BoundSpace, params: Params) -> PeftConfig:
    def choose(dimension: Dimension) -> Any:
        return params.get(dimension.name, dimension.from_unit(0.0))

    return space.build(choose)


def _track_extremes(space: BoundSpace, track: Track, cost: Cost) -> Iterator[Extremes]:
    memory: dict[Any, Extremes] = {}
    for world in worlds(space, track):
        whole = Extremes((0, world.shared), None, (0, world.shared))
        for name, layers in world.groups:
            heres = [Here(name, layer, "group") for layer in layers]
            whole = _sum(whole, _group(space, track, world, heres, cost, memory))
        yield whole


def _group(
    space: BoundSpace,
    track: Track,
    world: World,
    heres: list[Here],
    cost: Cost,
    memory: dict[Any, Extremes],
) -> Extremes:
    """The bounds of one group; without a budget its entries are independent."""
    if space.has_fill:
        return _entries(space, track, world, heres, cost)
    switch = space.tuned_dimension(heres[0].group).name
    on = Extremes((0, {switch: True}), None, (0, {switch: True}))
    for entry in track:
        own = {name: value for name, value in world.shared.items() if belongs(name, (entry,))}
        key = (entry, tuple(own.items()), tuple(heres))
        if key not in memory:
            inside = World({**own, switch: True}, world.groups, world.tuned)
            memory[key] = _entries(space, (entry,), inside, heres, cost)
        on = _sum(on, memory[key])
    if not isinstance(space.space.layers.tuned, Subset):
        return on
    off = (0, {switch: False})
    return _best_world(iter([Extremes(off, None, off), on]))


def _entries(
    space: BoundSpace, track: Track, world: World, heres: list[Here], cost: Cost
) -> Extremes:
    """The bounds of what some entries put on one group."""

    def walk(choose: Callable[[Dimension], Any]) -> Walk:
        return Walk(space.shape, space.names, choose, dict(world.shared))

    def price(walk: Walk) -> tuple[int, bool, Params]:
        raws = [
            raw
            for here in heres
            if space.is_tuned(walk, here)
            for raw in space.layer_placements(walk, here, track)
        ]
        if any(is_fill(raw) for raw in raws):
            budget = {k: walk.value(v, f"budget.{k}") for k, v in space.space.budget.entries}
            raws = fill(raws, world.tuned, budget, space.shape, cost)
        total = sum(cost(r.method, r.options, space.shape.layers[r.layer]) for r in raws)
        return total, bool(raws), {**walk.chosen}

    return _spread(list(outcomes(price, walk)))


def _spread(plans: list[tuple[int, bool, Params]]) -> Extremes:
    points = [(total, params) for total, _, params in plans]
    placed = [(total, params) for total, any_, params in plans if any_]
    return Extremes(
        min(points, key=_price), min(placed, key=_price, default=None), max(points, key=_price)
    )


def _sum(a: Extremes, b: Extremes) -> Extremes:
    """The bounds of two parts that are chosen independently."""
    placed = [
        _join(x, y)
        for x, y in ((a.least_placed, b.least), (a.least, b.least_placed))
        if x is not None and y is not None
    ]
    return Extremes(
        _join(a.least, b.least), min(placed, key=_price, default=None), _join(a.most, b.most)
    )


def _best_world(worlds: Iterator[Extremes]) -> Extremes:
    """The bounds over alternatives."""
    known = list(worlds)
    placed = [world.least_placed for world in known if world.least_placed is not None]
    return Extremes(
        min((world.least for world in known), key=_price),
        min(placed, key=_price, default=None),
        max((world.most for world in known), key=_price),
    )


def _join(a: tuple[int, Params], b: tuple[int, Params]) -> tuple[int, Params]:
    return a[0] + b[0], {**a[1], **b[1]}


def _price(point: tuple[int, Params]) -> int:
    return point[0]
