"""The cheapest and the dearest configuration of a space, by an additive cost."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from autopeft.core.config import PeftConfig
from autopeft.space.budget import Cost, fill, is_fill
from autopeft.space.dimension import Dimension
from autopeft.space.distinct import Track, outcomes, shared_choices, tracks, tuned_layers
from autopeft.space.walk import Here, Walk

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
    for shared in shared_choices(space, track):
        pattern = shared.get("layers.pattern", space.patterns[0])
        tuned = tuned_layers(space, shared, pattern)
        world = Extremes((0, shared), None, (0, shared))
        for name, layers in space.partition(pattern):
            heres = [Here(name, layer, "group") for layer in layers]
            plans = outcomes(_priced(space, track, heres, tuned, cost), _fixed(space, shared))
            world = _sum(world, _spread(list(plans)))
        yield world


def _fixed(space: BoundSpace, shared: Params) -> Callable[[Callable[[Dimension], Any]], Walk]:
    return lambda choose: Walk(space.shape, space.names, choose, dict(shared))


def _priced(
    space: BoundSpace, track: Track, heres: list[Here], tuned: tuple[int, ...], cost: Cost
) -> Callable[[Walk], tuple[int, bool, Params]]:
    """For one group: cost, whether anything is placed, and the point."""

    def price(walk: Walk) -> tuple[int, bool, Params]:
        raws = [
            raw
            for here in heres
            if space.is_tuned(walk, here)
            for raw in space.layer_placements(walk, here, track.entries)
        ]
        if any(is_fill(raw) for raw in raws):
            budget = {k: walk.value(v, f"budget.{k}") for k, v in space.space.budget.entries}
            raws = fill(raws, tuned, budget, space.shape, cost)
        total = sum(cost(r.method, r.options, space.shape.layers[r.layer]) for r in raws)
        return total, bool(raws), dict(walk.chosen)

    return price


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
