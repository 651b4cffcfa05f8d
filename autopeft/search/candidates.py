"""Configurations worth considering next, and the first ones of a search."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from autopeft.core.config import PeftConfig
from autopeft.core.errors import SpaceError

if TYPE_CHECKING:
    from autopeft.space.bound import BoundSpace

N_RANDOM = 192
N_NEAR = 192
N_WALK = 12

Array = NDArray[np.float64]


def candidates(
    space: BoundSpace,
    elites: Sequence[PeftConfig],
    seen: AbstractSet[str],
    rng: np.random.Generator,
) -> list[PeftConfig]:
    """Random configurations and neighbours of the elites, each once, none of them seen.

    Elites outside the space, as baselines may be, are passed over.
    """
    near: list[PeftConfig] = []
    for config in elites:
        with suppress(SpaceError):
            near.extend(space.neighbours(config, rng, max(4, N_NEAR // len(elites))))
    return unseen([*near, *(space.sample(rng) for _ in range(N_RANDOM))], seen)


def thrifty(
    space: BoundSpace,
    cost: Callable[[PeftConfig], float],
    seen: AbstractSet[str],
    rng: np.random.Generator,
) -> list[PeftConfig]:
    """Random configurations, and those met on a walk from the cheapest towards ever cheaper ones.

    Uniform choices make configurations of nearly the same size; the walk fills the small end.
    """
    found = [space.sample(rng) for _ in range(N_RANDOM)]
    here = min(found, key=cost)
    for _ in range(N_WALK):
        near = space.neighbours(here, rng, N_WALK)
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


def spread(index: int, costs: Array, rows: Array, taken: Array, n_close: int = 8) -> int:
    """The candidate of a wanted cost that is most unlike all that are taken.

    The wanted costs go through the range of `costs` as a van der Corput sequence, so that any few
    of them in a row cover it.

    Args:
        index: position in the sequence, from 0.
        costs: of the candidates, shape `(n,)`; all equal where no cost is known.
        rows: features of the candidates, shape `(n, d)`.
        taken: features of the configurations of the history, shape `(k, d)`; `k` may be 0.
        n_close: how many candidates are close enough to the wanted cost.

    Returns:
        The index of the candidate.
    """
    wanted = costs.min() + van_der_corput(index) * (costs.max() - costs.min())
    close = np.argsort(np.abs(costs - wanted), kind="stable")
    close = close[:n_close] if np.ptp(costs) > 0 else close
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
