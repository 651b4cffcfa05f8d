"""Configurations worth considering next, and the first ones of a search."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from itertools import product

import numpy as np

from autopeft.core.config import PeftConfig
from autopeft.objective.array import Array
from autopeft.search.features import features
from autopeft.space.bound import BoundSpace, Drawn

N_ALL = 2048
"""Up to how many points all configurations of a space are candidates."""

N_RANDOM = 192
N_NEAR = 192
N_WALK = 12
N_CLOSE = 8
"""Candidates that are close enough to a wanted cost; an eighth of them, where that is more."""

N_DEARER = 4
"""Neighbours in a row, for each decision, that are not cheaper where a long walk ends."""


def everything(space: BoundSpace) -> list[Drawn] | None:
    """All configurations of a small space, each once; None of a larger or a continuous one."""
    values = [dimension.values or () for dimension in space.dimensions.values()]
    if space.continuous or math.prod(map(len, values)) > N_ALL:
        return None
    points = (dict(zip(space.dimensions, point, strict=True)) for point in product(*values))
    return unseen((space.at(point) for point in points), frozenset())


def candidates(
    space: BoundSpace, rng: np.random.Generator, elites: Sequence[Drawn], seen: AbstractSet[str]
) -> list[Drawn]:
    """The elites, neighbours of theirs and random configurations, each once, none of them seen."""
    n_near = max(4, N_NEAR // max(1, len(elites)))
    near = [neighbour for elite in elites for neighbour in space.near(elite, rng, n_near)]
    return unseen([*elites, *near, *anywhere(space, rng)], seen)


def anywhere(space: BoundSpace, rng: np.random.Generator) -> list[Drawn]:
    """Random configurations: uniform ones, and as many sketches."""
    return [space.draw(rng) if i % 2 else space.sketch(rng) for i in range(N_RANDOM)]


def nearest(space: BoundSpace, rng: np.random.Generator, config: PeftConfig) -> Drawn:
    """The point that is most like a configuration of elsewhere, as far as a climb finds it."""

    def closest(drawn: Sequence[Drawn]) -> Drawn:
        goal, *rows = features([config, *(each.config for each in drawn)], space.n_layers)
        return drawn[int(((np.array(rows) - goal) ** 2).sum(axis=1).argmin())]

    here = closest(anywhere(space, rng))
    for _ in range(N_WALK):
        there = closest([here, *space.near(here, rng, N_NEAR)])
        if there == here:
            break
        here = there
    return here


def thrifty(
    space: BoundSpace,
    rng: np.random.Generator,
    cost: Callable[[PeftConfig], float],
    seen: AbstractSet[str],
) -> list[Drawn]:
    """Random configurations, and those met on a walk from the cheapest towards ever cheaper ones.

    Uniform choices make configurations of nearly the same size; the walk fills the small end.
    """
    drawn = anywhere(space, rng)
    here = min(drawn, key=lambda each: cost(each.config))
    return unseen([*drawn, *downhill(space, rng, here, cost)], seen)


def downhill(
    space: BoundSpace,
    rng: np.random.Generator,
    here: Drawn,
    cost: Callable[[PeftConfig], float],
    n_steps: int = N_WALK,
) -> Iterator[Drawn]:
    """The neighbours met on a walk that goes on to the cheapest of them while it is cheaper."""
    for _ in range(n_steps):
        near = space.near(here, rng, N_WALK)
        yield from near
        best = min([here, *near], key=lambda each: cost(each.config))
        if cost(best.config) >= cost(here.config):
            return
        here = best


def corner(space: BoundSpace, unit: float) -> Drawn:
    """The configuration of the first value of every decision for 0, of the last for 1."""
    return space.at({name: d.from_unit(unit) for name, d in space.dimensions.items()})


def least(
    space: BoundSpace, rng: np.random.Generator, cost: Callable[[PeftConfig], float]
) -> PeftConfig:
    """The cheapest configuration with a placement that is met on a long walk.

    The walk begins with the cheapest of random ones and of those about the corners of the space,
    and goes on to any cheaper neighbour, until many in a row are not.
    """

    def price(drawn: Drawn) -> float:
        return cost(drawn.config) if drawn.config.placements else math.inf

    corners = [corner(space, 0.0), corner(space, 1.0)]
    about = [neighbour for each in corners for neighbour in space.near(each, rng, N_NEAR)]
    here = min([*corners, *about, *(space.draw(rng) for _ in range(N_RANDOM))], key=price)
    n_dearer = 0
    while n_dearer < N_DEARER * len(here.point):
        (there,) = space.near(here, rng, 1) or [here]
        is_cheaper = price(there) < price(here)
        here, n_dearer = (there, 0) if is_cheaper else (here, n_dearer + 1)
    return here.config


def unseen(drawn: Iterable[Drawn], seen: AbstractSet[str]) -> list[Drawn]:
    """Those whose configurations have keys that are not seen, each once, in their order."""
    fresh = {each.config.key: each for each in drawn}
    return [each for key, each in fresh.items() if key not in seen]


def spread(
    index: int,
    costs: Array,
    rows: Array,
    taken: Array,
    promise: Array | None = None,
) -> int:
    """The candidate of a wanted cost that promises most, or else is most unlike all that are taken.

    The wanted costs go through the range of `costs` as a van der Corput sequence, so that any few
    of them in a row cover it.

    Args:
        index: position in the sequence, from 0.
        costs: of the candidates, shape `(n,)`; all equal where no cost is known.
        rows: features of the candidates, shape `(n, d)`.
        taken: features of the configurations of the history, shape `(k, d)`; `k` may be 0.
        promise: losses that are expected of the candidates, shape `(n,)`; None where nothing is.

    Returns:
        The index of the candidate.
    """
    target = costs.min() + van_der_corput(index) * (costs.max() - costs.min())
    close = np.argsort(np.abs(costs - target), kind="stable")
    close = close[: max(N_CLOSE, len(costs) // 8)] if np.ptp(costs) > 0 else close
    if promise is not None:
        return int(close[int(promise[close].argmin())])
    if not len(taken):
        return int(close[0])
    distances = ((rows[close, None, :] - taken[None, :, :]) ** 2).sum(axis=-1).min(axis=1)
    return int(close[int(distances.argmax())])


def van_der_corput(index: int) -> float:
    """The element of the base-2 low-discrepancy sequence 1/2, 1/4, 3/4, 1/8 and so on."""
    value, weight, index = 0.0, 0.5, index + 1
    while index:
        value += weight * (index % 2)
        index //= 2
        weight /= 2
    return value
