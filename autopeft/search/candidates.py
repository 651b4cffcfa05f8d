"""Configurations worth considering next, and the first ones of a search."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from autopeft.core.config import PeftConfig

if TYPE_CHECKING:
    from autopeft.space.bound import BoundSpace

N_ALL = 2048
"""Up to how many points all configurations of a space are candidates."""

N_RANDOM = 192
N_NEAR = 192
N_WALK = 12

Array = NDArray[np.float64]


def everything(space: BoundSpace) -> list[PeftConfig] | None:
    """All configurations of a small space, each once; None of a larger or a continuous one."""
    values = [dimension.values or () for dimension in space.dimensions.values()]
    if space.continuous or math.prod(map(len, values)) > N_ALL:
        return None
    points = (dict(zip(space.dimensions, point, strict=True)) for point in product(*values))
    return unseen((space.resolve(point) for point in points), frozenset())


class Draws:
    """Configurations of a space drawn for one decision.

    Their points are kept, so that neighbours of those drawn here need no search for a point.

    Args:
        space: where they come from.
        rng: of all draws.
    """

    def __init__(self, space: BoundSpace, rng: np.random.Generator) -> None:
        self._space, self._rng = space, rng
        self._points: dict[PeftConfig, Mapping[str, Any]] = {}

    def random(self, n: int) -> list[PeftConfig]:
        """`n` configurations, perhaps some of them equal."""
        drawn = [self._space.draw(self._rng) for _ in range(n)]
        self._points |= drawn
        return [config for config, _ in drawn]

    def near(self, config: PeftConfig, n: int) -> list[PeftConfig]:
        """Up to `n` neighbours; none of a configuration outside the space, as baselines may be."""
        point = self._points.get(config)
        point = self._space.assign(config) if point is None else point
        if point is None:
            return []
        found = self._space.near(config, point, self._rng, n)
        self._points |= found
        return list(found)


def candidates(
    draws: Draws, elites: Sequence[PeftConfig], seen: AbstractSet[str]
) -> list[PeftConfig]:
    """Random configurations and neighbours of the elites, each once, none of them seen."""
    n_near = max(4, N_NEAR // max(1, len(elites)))
    near = [found for config in elites for found in draws.near(config, n_near)]
    return unseen([*near, *draws.random(N_RANDOM)], seen)


def thrifty(
    draws: Draws, cost: Callable[[PeftConfig], float], seen: AbstractSet[str]
) -> list[PeftConfig]:
    """Random configurations, and those met on a walk from the cheapest towards ever cheaper ones.

    Uniform choices make configurations of nearly the same size; the walk fills the small end.
    """
    found = draws.random(N_RANDOM)
    here = min(found, key=cost)
    for _ in range(N_WALK):
        near = draws.near(here, N_WALK)
        found.extend(near)
        best = min([here, *near], key=cost)
        if cost(best) >= cost(here):
            break
        here = best
    return unseen(found, seen)


def unseen(configs: Iterable[PeftConfig], seen: AbstractSet[str]) -> list[PeftConfig]:
    """The configurations whose keys are not seen, each once, in their order."""
    fresh = {config.key: config for config in configs}
    return [config for key, config in fresh.items() if key not in seen]


def spread(
    index: int,
    costs: Array,
    rows: Array,
    taken: Array,
    promise: Array | None = None,
    n_close: int = 8,
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
        n_close: how many candidates are close enough to the wanted cost.

    Returns:
        The index of the candidate.
    """
    wanted = costs.min() + van_der_corput(index) * (costs.max() - costs.min())
    close = np.argsort(np.abs(costs - wanted), kind="stable")
    close = close[:n_close] if np.ptp(costs) > 0 else close
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
