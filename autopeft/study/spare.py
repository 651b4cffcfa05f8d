"""What is proposed where a sampler proposes nothing that may be trained."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import cache

import numpy as np

from autopeft.core.config import PeftConfig
from autopeft.search.candidates import downhill, everything
from autopeft.space.bound import BoundSpace, Drawn
from autopeft.study.terms import Terms

N_DRAWN = 300
"""Random configurations, and steps of a walk from one of them, among which one is looked for."""


class Spare:
    """Configurations of a space that no trial has and that keep the limits.

    Args:
        space: of the study.
        terms: of the study, with its limits.
    """

    def __init__(self, space: BoundSpace, terms: Terms) -> None:
        self._space, self._terms = space, terms
        self._everything = everything(space)

    def is_exhausted(self, is_known: Callable[[str], bool]) -> bool:
        """Whether some trial has each configuration; False of a space too large to tell.

        Args:
            is_known: whether some trial has the configuration of a key.
        """
        every = self._everything
        return every is not None and all(is_known(drawn.config.key) for drawn in every)

    def find(self, rng: np.random.Generator, is_known: Callable[[str], bool]) -> Drawn | None:
        """One of them; None where none is found."""
        excess = cache(self._excess)
        fresh = (each for each in self._candidates(rng, excess) if not is_known(each.config.key))
        return next((each for each in fresh if excess(each.config) <= 0), None)

    def _candidates(
        self, rng: np.random.Generator, excess: Callable[[PeftConfig], float]
    ) -> Iterator[Drawn]:
        """All in a random order or, of a large space, random ones and ever smaller ones."""
        if self._everything is not None:
            yield from (self._everything[i] for i in rng.permutation(len(self._everything)))
            return
        drawn = []
        for _ in range(N_DRAWN):
            drawn.append(self._space.draw(rng))
            yield drawn[-1]
        if self._terms.limits:
            here = min(drawn, key=lambda each: excess(each.config))
            yield from downhill(self._space, rng, here, excess, N_DRAWN)

    def _excess(self, config: PeftConfig) -> float:
        """By how much a configuration exceeds a limit, as a share of it; infinite if unknown."""
        shares = [-math.inf]
        for name, limit in self._terms.limits.items():
            try:
                value = float(self._terms.known[name].value(config))
            except Exception:  # a trial of it would fail with the reason
                value = math.nan
            shares.append((value - limit) / max(1.0, abs(limit)))
        return math.inf if any(map(math.isnan, shares)) else max(shares)
