"""A space on one backbone: points of it can be drawn, named, moved and counted."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from functools import cached_property, lru_cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np
from optuna.distributions import BaseDistribution

from autopeft.core.config import PeftConfig, Placement
from autopeft.core.errors import SpaceError
from autopeft.core.shape import Shape
from autopeft.space.budget import Cost, check_budget, fill, is_fill
from autopeft.space.dimension import Dimension
from autopeft.space.domain import Choice, Range, Subset, Tree
from autopeft.space.layers import Groups, group_names, known_group, partition
from autopeft.space.remembered import Remembered
from autopeft.space.walk import Choose, Here, Raw, Walk, check_where, group_layers

if TYPE_CHECKING:
    from autopeft.space.space import SearchSpace

__all__ = ["BoundSpace", "Cost"]

Params = Mapping[str, Any]


class BoundSpace:
    """A search space on a backbone.

    A point of the space is a mapping from names of decisions to their values (`params`, as Optuna
    records them); several points can stand for the same configuration.

    Raises:
        SpaceError: groups, selectors or a budget that the backbone cannot meet.
    """

    def __init__(self, space: SearchSpace, shape: Shape, cost: Cost | None) -> None:
        self.space, self.shape, self.cost = space, shape, cost
        self.n_layers = len(shape.layers)
        self.names = group_names(_plain(space.layers.groups), shape)
        self.has_fill = _mentions_fill(space.place)
        self._costs: dict[Hashable, int] = {}
        self._remembered: dict[tuple[Here, int], Remembered[list[Placement]]]
        self._remembered = defaultdict(Remembered)
        check_budget(self.has_fill, space.budget)
        self._heres = {p: group_layers(self.partition(p)) for p in self.patterns}
        if isinstance(space.layers.tuned, tuple):
            for name in space.layers.tuned:
                known_group(name, self.names, "layers.tuned")
        heres = [here for found in self._heres.values() for here in found]
        for i, entry in enumerate(space.place):
            check_where(entry, heres, self.walk(lambda d: None), f"place[{i}]")
        if self.has_fill and cost is not None and not shape.parameters:
            raise SpaceError("sizes of fill need a backbone with its parameters", "budget")
        if space.is_configuration:
            self._check_idle()

    @property
    def patterns(self) -> tuple[str, ...]:
        """The patterns that a point can choose."""
        pattern = self.space.layers.pattern
        return pattern.items if isinstance(pattern, Choice) else (pattern,)

    def partition(self, pattern: str) -> Groups:
        """The groups of layers under a pattern."""
        return partition(_plain(self.space.layers.groups), pattern, self.shape)

    def resolve(self, params: Params) -> PeftConfig:
        """The configuration of a point; decisions that it does not ask for may be missing.

        Raises:
            SpaceError: a decision that it asks for is missing.
        """

        def recorded(dimension: Dimension) -> Any:
            if dimension.name not in params:
                raise SpaceError(f"the point does not say {dimension.name}", self.space.name)
            return params[dimension.name]

        return self.build(recorded)

    def build(self, choose: Choose) -> PeftConfig:
        """The configuration that comes out when `choose` takes every decision as it is met."""
        return self.follow(self.walk(choose))

    def walk(self, choose: Choose) -> Walk:
        """A pass over this space that has not begun."""
        return Walk(self.shape, self.names, choose)

    def follow(self, walk: Walk) -> PeftConfig:
        """The configuration at the end of a pass."""
        return PeftConfig.of(
            self._filled(walk) if self.has_fill else self._composed(walk),
            walk.value(self.space.train, "train"),
            walk.value(self.space.backbone, "backbone"),
        )

    def _filled(self, walk: Walk) -> list[Placement]:
        """The placements of a space with `fill`."""
        raws, tuned = self.raw_placements(walk)
        return _placements(fill(raws, tuned, self._budget(walk), self.shape, self._known_cost()))

    def _composed(self, walk: Walk) -> list[Placement]:
        """The placements of a space without `fill`, of each entry and layer by itself."""
        found: list[Placement] = []
        for here in self._heres[walk.value(self.space.layers.pattern, "layers.pattern")]:
            for entry in range(len(self.space.place)) if self.is_tuned(walk, here) else ():
                put = partial(self._put, here, entry)
                found += self._remembered[here, entry](walk, put)
        return found

    def _put(self, here: Here, entry: int, walk: Walk) -> list[Placement]:
        return _placements(self.layer_placements(walk, here, [entry]))

    def raw_placements(self, walk: Walk) -> tuple[list[Raw], tuple[int, ...]]:
        """All placements with `fill` still open, and the layers that are tuned."""
        raws: list[Raw] = []
        tuned: list[int] = []
        for here in self._heres[walk.value(self.space.layers.pattern, "layers.pattern")]:
            if self.is_tuned(walk, here):
                tuned.append(here.layer)
                raws += self.layer_placements(walk, here)
        return raws, tuple(sorted(tuned))

    def is_tuned(self, walk: Walk, here: Here) -> bool:
        """Whether the group of a layer is tuned."""
        tuned = self.space.layers.tuned
        if isinstance(tuned, Subset):
            return bool(walk.pick(self.tuned_dimension(here.group)))
        return tuned == "all" or here.group in tuned

    def tuned_dimension(self, group: str) -> Dimension:
        """The decision whether a group is tuned."""
        return Dimension.switch(f"layers.tuned@{group}", "space" if self.has_fill else "group")

    def layer_placements(
        self, walk: Walk, here: Here, entries: Iterable[int] | None = None
    ) -> list[Raw]:
        """What entries of `place`, by default all, put on one layer.

        A placement that finds nothing to train there, such as BitFit without biases, is absent.
        """
        indices = range(len(self.space.place)) if entries is None else entries
        return [
            raw
            for i in indices
            for raw in walk.placements(self.space.place[i], str(i), here)
            if self._trains(raw)
        ]

    def _trains(self, raw: Raw) -> bool:
        if self.cost is None or is_fill(raw):
            return True
        key = (raw.layer, raw.method, tuple(raw.options.items()))
        if key not in self._costs:
            self._costs[key] = self.cost(raw.method, raw.options, self.shape.layers[raw.layer])
        return self._costs[key] > 0

    def _check_idle(self) -> None:
        """Refuses a configuration all of whose placements find nothing to train."""
        walk = self.walk(lambda dimension: dimension.from_unit(0.0))
        heres = self._heres[self.patterns[0]]
        wanted = {
            raw.method: f"place[{i}]"
            for i, entry in enumerate(self.space.place)
            for here in heres
            for raw in walk.placements(entry, str(i), here)
        }
        if wanted and not any(self.layer_placements(walk, here) for here in heres):
            raise SpaceError(
                f"{', '.join(wanted)} finds nothing to train in this backbone",
                next(iter(wanted.values())),
            )

    def sample(self, rng: np.random.Generator) -> PeftConfig:
        """A configuration of a point drawn uniformly."""
        return self.draw(rng)[0]

    def draw(self, rng: np.random.Generator) -> tuple[PeftConfig, Params]:
        """A configuration of a point drawn uniformly, and the decisions that it asks for."""
        walk = self.walk(lambda dimension: dimension.sample(rng))
        return self.follow(walk), walk.chosen

    def distributions(self) -> dict[str, BaseDistribution]:
        """Every decision that some point asks for, as Optuna distributions."""
        return {name: d.distribution() for name, d in self.dimensions.items()}

    @cached_property
    def dimensions(self) -> dict[str, Dimension]:
        """Every decision that some point asks for, by name, in the order of the document."""
        from autopeft.space.count import all_dimensions

        return {dimension.name: dimension for dimension in all_dimensions(self)}

    def assign(self, config: PeftConfig) -> Params | None:
        """A point that stands for `config`; None where the space does not contain it."""
        return self._match(config)

    @cached_property
    def _match(self) -> Callable[[PeftConfig], Params | None]:
        """The search for a point, which remembers what it has found."""
        from autopeft.space.match import match

        return lru_cache(maxsize=8192)(partial(match, self))

    def __contains__(self, config: object) -> bool:
        return isinstance(config, PeftConfig) and self.assign(config) is not None

    def encode(self, config: PeftConfig) -> np.ndarray:
        """A point of `config` in the unit cube, shape (dimensions,); 0 where not asked for.

        Raises:
            SpaceError: the space does not contain the configuration.
        """
        params = self.assign(config)
        if params is None:
            raise SpaceError("the space does not contain this configuration", self.space.name)
        return np.array(
            [d.to_unit(params[name]) if name in params else 0.0 for name, d in self._items]
        )

    def decode(self, vector: Sequence[float] | np.ndarray) -> PeftConfig:
        """The configuration of the point nearest to a vector of shape (dimensions,)."""
        units = dict(zip(self.dimensions, vector, strict=True))
        return self.build(lambda dimension: dimension.from_unit(units[dimension.name]))

    def neighbours(self, config: PeftConfig, rng: np.random.Generator, n: int) -> list[PeftConfig]:
        """Up to `n` different configurations that one changed decision away from `config` gives.

        Raises:
            SpaceError: the space does not contain the configuration.
        """
        params = self.assign(config)
        if params is None:
            raise SpaceError("the space does not contain this configuration", self.space.name)
        return list(self.near(config, params, rng, n))

    def near(
        self, config: PeftConfig, params: Params, rng: np.random.Generator, n: int
    ) -> dict[PeftConfig, Params]:
        """The neighbours of a configuration of which a point is known, each with a point."""
        found: dict[PeftConfig, Params] = {}
        for _ in range(4 * n):
            if len(found) == n or not params:
                break
            name = list(params)[int(rng.integers(len(params)))]
            moved, point = self._moved(params, name, rng)
            found.setdefault(moved, point)
            found.pop(config, None)
        return found

    def _moved(
        self, params: Params, name: str, rng: np.random.Generator
    ) -> tuple[PeftConfig, Params]:
        changed = {**params, name: self.dimensions[name].move(params[name], rng)}
        walk = self.walk(lambda d: changed[d.name] if d.name in changed else d.sample(rng))
        return self.follow(walk), walk.chosen

    @cached_property
    def assignments(self) -> int:
        """In how many ways the domains can be filled; a continuous range counts once."""
        from autopeft.space.count import count_assignments

        return count_assignments(self)

    @cached_property
    def configurations(self) -> int:
        """How many distinct configurations with at least one placement there are."""
        from autopeft.space.distinct import count_configurations

        return count_configurations(self)

    @property
    def continuous(self) -> list[str]:
        """The decisions without a grid, which counts take as one value."""
        return [name for name, d in self.dimensions.items() if d.values is None]

    @property
    def _items(self) -> Iterable[tuple[str, Dimension]]:
        return self.dimensions.items()

    def _budget(self, walk: Walk) -> dict[str, Any]:
        return {k: walk.value(v, f"budget.{k}") for k, v in self.space.budget.entries}

    def _known_cost(self) -> Callable[..., int]:
        if self.cost is None:
            raise SpaceError("sizes of fill need a backbone to count on", "budget")
        return self.cost


def _plain(groups: Any) -> Any:
    return dict(groups.entries) if isinstance(groups, Tree) else groups


def _placements(raws: Iterable[Raw]) -> list[Placement]:
    return [Placement.of(raw.method, [raw.layer], raw.complete) for raw in raws]


def _mentions_fill(node: Any) -> bool:
    if isinstance(node, Tree):
        return any(_mentions_fill(child) for key, child in node.entries if key != "where")
    if isinstance(node, Choice):
        return _mentions_fill(node.items)
    if isinstance(node, tuple):
        return any(_mentions_fill(item) for item in node)
    return not isinstance(node, Range | Subset) and node == "fill"
