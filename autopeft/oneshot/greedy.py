"""A front found by adding, step by step, what is worth most for its parameters."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from itertools import combinations
from typing import Any

import numpy as np

from autopeft.core.config import PeftConfig, Placement
from autopeft.core.errors import AttachError
from autopeft.method.hook import TrainedSite
from autopeft.method.member import Member
from autopeft.oneshot.proposer import Problem
from autopeft.space.bound import BoundSpace, Drawn
from autopeft.space.dimension import Dimension
from autopeft.train.lent import Lent

N_VALUES = 9
"""Of a decision without a list of its own."""

Worth = Callable[[Placement], Mapping[int, float]]
"""What a placement, whose own layers are not read, is worth on each layer; 0 where unknown."""


def summed(lent: Lent, whole: Member, of_site: Callable[[TrainedSite, set[str]], float]) -> Worth:
    """The worth of a placement from that of its sites, on the layers that another has.

    Args:
        lent: the backbone.
        whole: a configuration that has sites on these layers.
        of_site: the worth of one of any size, and where it notes names that count no more.
    """
    layers = tuple(sorted({site.placed.layer for site in whole.sites}))

    @cache
    def worth(placement: Placement) -> Mapping[int, float]:
        by_layer: dict[int, float] = defaultdict(float)
        placed = replace(whole.config, placements=(replace(placement, layers=layers),))
        try:
            sites = lent.drawn(placed, 0).sites
        except AttachError:
            return by_layer
        counted: set[str] = set()
        for site in sites:
            by_layer[site.placed.layer] += of_site(site, counted)
        return by_layer

    return worth


def proposed(problem: Problem, worth: Worth, n: int) -> tuple[dict[str, Any], ...]:
    """Points of up to `n` configurations on the path, the largest first.

    They are the last ones below sizes that are spread evenly in their logarithm.
    """
    path = [*filled(problem, worth)]
    if not path:
        return ()
    costs = [problem.params(each.config) for each in path]
    sizes = np.geomspace(max(costs), max(1.0, min(costs)), n)
    largest = [max(i for i, cost in enumerate(costs) if cost <= size * 1.001) for size in sizes]
    return tuple(dict(path[i].point) for i in dict.fromkeys(largest))


def filled(problem: Problem, worth: Worth) -> Iterator[Drawn]:
    """Configurations that keep the limits, each what the one before becomes by a change.

    It begins with nothing, or the least, of whatever the largest has. The change is the one that
    adds most worth for its parameters, see `_steps`, and there are changes until none that is
    allowed adds any.
    """

    def value(config: PeftConfig) -> float:
        return sum(worth(replace(p, layers=()))[n] for p in config.placements for n in p.layers)

    middle = problem.middle
    dimensions = {n: d for n, d in problem.space.dimensions.items() if n not in middle}
    choices = {**{name: _least(each) for name, each in dimensions.items()}, **middle}
    here = problem.space.at(choices)
    is_allowed = problem.allows(here)
    if is_allowed:
        yield here
    while True:
        worth_here, params_here = value(here.config), problem.params(here.config)
        gained: list[tuple[float, float, dict[str, Any], Drawn]] = []
        for change, there in _steps(problem.space, dimensions, choices):
            gain = value(there.config) - worth_here
            if gain > 0 or not is_allowed:
                paid = problem.params(there.config) - params_here
                gained.append((gain / paid if paid > 0 else math.inf, gain, change, there))
        gained.sort(key=lambda each: each[:2], reverse=True)
        found = next((each for each in gained if problem.allows(each[-1])), None)
        if found is None:
            return
        choices, here, is_allowed = {**choices, **found[2]}, found[3], True
        yield here


def _least(dimension: Dimension) -> Any:
    """What leaves a placement out, the least of numbers, else what the largest has."""
    if dimension.absent is not None:
        return dimension.absent
    return dimension.from_unit(0.0 if dimension.ordered else 1.0)


def _steps(
    space: BoundSpace, dimensions: Mapping[str, Dimension], choices: Mapping[str, Any]
) -> Iterator[tuple[dict[str, Any], Drawn]]:
    """Changes that matter, and where they lead: of one decision, or of two that do nothing alone.

    A size needs a layer to be at, and a layer a size.
    """
    here = space.at(choices).config
    idle: list[dict[str, Any]] = []
    for change in _changes(dimensions, choices):
        there = space.at({**choices, **change})
        if there.config == here:
            idle.append(change)
        else:
            yield change, there
    for one, other in combinations(idle, 2):
        there = space.at({**choices, **one, **other})
        if one.keys().isdisjoint(other) and there.config != here:
            yield {**one, **other}, there


def _changes(
    dimensions: Mapping[str, Dimension], choices: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """Another value of one decision, in one place or in all where it is decided."""
    alike: dict[str, list[str]] = {}
    for name in dimensions:
        alike.setdefault(name.partition("@")[0], []).append(name)
    for names in alike.values():
        values = _values(dimensions[names[0]])
        groups: Sequence[Sequence[str]] = [[name] for name in names]
        for group in [*groups, names] if len(names) > 1 else groups:
            for value in values:
                change = {name: value for name in group if choices[name] != value}
                if change:
                    yield change


def _values(dimension: Dimension) -> Sequence[Any]:
    if dimension.values is not None and len(dimension.values) <= N_VALUES:
        return dimension.values
    units = np.linspace(0.0, 1.0, N_VALUES)
    return [*dict.fromkeys(dimension.from_unit(unit) for unit in units)]
