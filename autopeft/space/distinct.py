"""How many distinct configurations a space makes, exactly, without listing them."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

from autopeft.core.config import freeze
from autopeft.space.classes import classified
from autopeft.space.domain import Tree
from autopeft.space.words import Planned, count_words
from autopeft.space.worlds import Track, outcomes, plans, tracks, worlds

if TYPE_CHECKING:
    from autopeft.space.bound import BoundSpace


def count_configurations(space: BoundSpace) -> int:
    """How many distinct configurations with at least one placement the space makes.

    Raises:
        SpaceError: the decisions are too many to go through.
    """
    words, empty = 1, True
    for track in tracks(space):
        n_words, has_empty = classified(space, track) or _spelled(space, track)
        words *= n_words
        empty = empty and has_empty
    kinds = _distinct(space, space.space.train, "train")
    return (words - empty) * kinds * _distinct(space, space.space.backbone, "backbone")


def _spelled(space: BoundSpace, track: Track) -> tuple[int, bool]:
    """The number of words of a track, and whether the empty word is among them."""
    planned: list[Planned] = [
        tuple(
            (len(layers), plans(space, track, world, name, layers)) for name, layers in world.groups
        )
        for world in worlds(space, track)
    ]
    return count_words(planned), any(map(_can_be_empty, planned))


def _can_be_empty(world: Planned) -> bool:
    return all(any(all(() in letters for letters in plan) for plan in plans) for _, plans in world)


def _distinct(space: BoundSpace, node: Any, name: str) -> int:
    """How many different settings a section makes; a continuous range counts once."""
    if isinstance(node, Tree):
        return prod(_distinct(space, child, f"{name}.{key}") for key, child in node.entries)
    values = outcomes(lambda walk: walk.value(node, name), space.walk)
    return len({freeze({name: value}) for value in values})
