"""A space on one backbone: its points can be drawn, moved and counted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution

from autopeft.core.config import PeftConfig
from autopeft.core.errors import SpaceError
from autopeft.core.shape import Shape
from autopeft.space.budget import Cost
from autopeft.space.compose import Composer
from autopeft.space.count import count_assignments
from autopeft.space.decisions import decisions
from autopeft.space.dimension import Dimension
from autopeft.space.form import Form
from autopeft.space.ground import Ground
from autopeft.space.walk import Choose, Walk

Params = Mapping[str, Any]

P_ABSENT, P_FREE = 0.5, 0.15
"""Of the domains of a sketch, how many leave out what can be absent, and differ by group."""

P_WHOLE = 0.3
"""How many neighbours have one value in all groups, absent as often as in a sketch."""


P_OTHER = 0.5
"""How many decisions of a cross are of the second point."""


@dataclass(frozen=True)
class Drawn:
    """A configuration and a point of a space that stands for it.

    Attributes:
        config: the configuration.
        point: the decisions that it asks for, by name, in the order in which they are met.
    """

    config: PeftConfig
    point: Params


@dataclass(frozen=True)
class _Stroke:
    """What a sketch decides for a domain.

    Attributes:
        shared: the value in all groups; None where each has its own.
    """

    shared: Any

    @classmethod
    def of(cls, dimension: Dimension, rng: np.random.Generator) -> _Stroke:
        chance = rng.random()
        if dimension.absent is not None and chance < P_ABSENT:
            return cls(dimension.absent)
        is_free = chance > 1 - P_FREE
        return cls(None if is_free else dimension.sample(rng))

    def value(self, dimension: Dimension, rng: np.random.Generator) -> Any:
        return dimension.sample(rng) if self.shared is None else self.shared


class BoundSpace:
    """A search space on a backbone.

    A point of the space is a mapping from names of decisions to their values, as Optuna records
    them; several points can stand for the same configuration.

    Attributes:
        space: the space.
        shape: the backbone.
        names: of the groups of layers.

    Raises:
        SpaceError: groups, selectors or a budget that the backbone cannot meet.
    """

    def __init__(self, space: Form, shape: Shape, cost: Cost | None) -> None:
        self.space, self.shape = space, shape
        self._ground = Ground.of(space, shape)
        self._compose = Composer(space, self._ground, cost)
        self.names = self._ground.names

    @property
    def n_layers(self) -> int:
        """Transformer layers of the backbone."""
        return len(self.shape.layers)

    @cached_property
    def dimensions(self) -> dict[str, Dimension]:
        """Every decision that some point asks for, by name, in the order of the document."""
        return decisions(self.space, self._ground)

    def distributions(self) -> dict[str, BaseDistribution]:
        """Every decision that some point asks for, as Optuna distributions."""
        return {name: d.distribution() for name, d in self.dimensions.items()}

    @property
    def continuous(self) -> list[str]:
        """The decisions without a grid, which counts take as one value."""
        return [name for name, d in self.dimensions.items() if d.values is None]

    @cached_property
    def assignments(self) -> int:
        """In how many ways the domains can be filled; a continuous range counts once."""
        return count_assignments(self.space, self._ground)

    def at(self, params: Params) -> Drawn:
        """What a point stands for; decisions that it does not ask for may be there or missing.

        Raises:
            SpaceError: a decision that it asks for is missing.
        """

        def recorded(dimension: Dimension) -> Any:
            if dimension.name not in params:
                raise SpaceError(f"the point does not say {dimension.name}", self.space.name)
            return params[dimension.name]

        return self._drawn(recorded)

    def filled(self, point: Params) -> Params:
        """The point with the first value of every decision that it does not say."""
        return {**{name: d.from_unit(0.0) for name, d in self.dimensions.items()}, **point}

    def resolve(self, params: Params) -> PeftConfig:
        """The configuration of a point, see `at`."""
        return self.at(params).config

    def draw(self, rng: np.random.Generator) -> Drawn:
        """A point drawn uniformly."""
        return self._drawn(lambda dimension: dimension.sample(rng))

    def sketch(self, rng: np.random.Generator) -> Drawn:
        """A point of few ideas, like those that people think of.

        Half of the placements that may be absent from a group are absent from all; most others have
        the same size in all.
        """
        strokes: dict[str, _Stroke] = {}

        def chosen(dimension: Dimension) -> Any:
            domain = _domain(dimension.name)
            if domain not in strokes:
                strokes[domain] = _Stroke.of(dimension, rng)
            return strokes[domain].value(dimension, rng)

        return self._drawn(chosen)

    def near(self, drawn: Drawn, rng: np.random.Generator, n: int) -> list[Drawn]:
        """Up to `n` different configurations that one changed decision away from `drawn` gives.

        For some of them the decision is changed alike in all groups.
        """
        names = list(drawn.point)
        moved: dict[PeftConfig, Drawn] = {}
        for _ in range(4 * n if names else 0):
            if len(moved) == n:
                break
            name = names[int(rng.integers(len(names)))]
            move = self._moved_whole if rng.random() < P_WHOLE else self._moved
            neighbour = move(drawn.point, name, rng)
            if neighbour.config != drawn.config:
                moved.setdefault(neighbour.config, neighbour)
        return list(moved.values())

    def cross(self, one: Drawn, other: Drawn, rng: np.random.Generator) -> Drawn:
        """A point that has each decision of one of two points."""
        mixed = {**other.point, **one.point}
        taken = {name: other.point[name] for name in other.point if rng.random() < P_OTHER}
        return self._changed(mixed, taken, rng)

    def _moved(self, point: Params, name: str, rng: np.random.Generator) -> Drawn:
        """The point with another value of one decision."""
        return self._changed(point, {name: self.dimensions[name].move(point[name], rng)}, rng)

    def _moved_whole(self, point: Params, name: str, rng: np.random.Generator) -> Drawn:
        """The point with another value of a decision, or what leaves it out, in all groups."""
        dimension = self.dimensions[name]
        is_left_out = dimension.absent is not None and rng.random() < P_ABSENT
        value = dimension.absent if is_left_out else dimension.move(point[name], rng)
        alike = [other for other in point if _domain(other) == _domain(name)]
        return self._changed(point, dict.fromkeys(alike, value), rng)

    def _changed(self, point: Params, new: Params, rng: np.random.Generator) -> Drawn:
        """The point with new values; what they newly ask for is drawn."""
        changed = {**point, **new}
        return self._drawn(lambda d: changed[d.name] if d.name in changed else d.sample(rng))

    def _drawn(self, choose: Choose) -> Drawn:
        walk = Walk(self._ground, choose)
        return Drawn(self._compose(walk), walk.chosen)


def _domain(name: str) -> str:
    """The domain of a decision, which may ask for one in every group."""
    return name.partition("@")[0]
