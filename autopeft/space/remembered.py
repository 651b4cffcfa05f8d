"""What a part of a pass over a space yields, by the decisions that it takes."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from autopeft.space.dimension import Dimension
from autopeft.space.walk import Walk

N_MOST = 4096
"""Ways to take the decisions of a part that are remembered."""

Yield = TypeVar("Yield")


@dataclass
class _Fork:
    """A decision that is met, and where each value of it leads."""

    dimension: Dimension
    ways: dict[Hashable, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _End(Generic[Yield]):
    found: Yield


class Remembered(Generic[Yield]):
    """A part of passes over a space that is evaluated once for every way to take its decisions.

    Decisions are met in the same order as in an evaluation. Those without a grid are evaluated
    each time.
    """

    def __init__(self) -> None:
        self._root: _Fork | _End[Yield] | None = None
        self._n_ends = 0

    def __call__(self, walk: Walk, evaluate: Callable[[Walk], Yield]) -> Yield:
        """What `evaluate`, the same at every call, yields on a pass."""
        node = self._root
        while isinstance(node, _Fork):
            node = node.ways.get(walk.pick(node.dimension))
        return self._evaluated(walk, evaluate) if node is None else node.found

    def _evaluated(self, walk: Walk, evaluate: Callable[[Walk], Yield]) -> Yield:
        taken: list[tuple[Dimension, Any]] = []

        def choose(dimension: Dimension) -> Any:
            taken.append((dimension, walk.pick(dimension)))
            return taken[-1][1]

        found = evaluate(Walk(walk.ground, choose))
        if self._n_ends < N_MOST and all(d.values is not None for d, _ in taken):
            self._n_ends += 1
            node: _Fork | _End[Yield] = _End(found)
            for dimension, value in reversed(taken):
                node = _Fork(dimension, {value: node})
            self._root = _joined(self._root, node)
        return found


def _joined(known: Any, new: Any) -> Any:
    """What is known, and one way more; both begin with the same decision."""
    if not isinstance(known, _Fork):
        return new
    for value, node in new.ways.items():
        known.ways[value] = _joined(known.ways.get(value), node)
    return known
