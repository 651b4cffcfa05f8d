"""Counts the words of a track by classes of letters that no world tells apart.

Where every group shows one letter on all its layers, and a letter is what each entry of `place`
puts there by itself, letters that are possible in the same groups of the same worlds are alike.
Only the number of each kind matters, so thousands of sizes count as quickly as two.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import TYPE_CHECKING, Any

from autopeft.space.domain import Subset
from autopeft.space.worlds import Letter, Track, World, belongs, collide, plans, worlds

if TYPE_CHECKING:
    from autopeft.space.bound import BoundSpace

Place = tuple[int, int]
"""A world and one of its groups, by index."""

Kind = tuple[int, ...]
"""A class of letters: for each entry the index of a class of its own letters, 0 for absent."""


@dataclass(frozen=True)
class _Alphabet:
    """The letters of one entry in classes.

    Attributes:
        sizes: how many letters each class has; class 0 holds the absent one.
        possible: the classes that each place allows.
    """

    sizes: tuple[int, ...]
    possible: Mapping[Place, tuple[int, ...]]


def classified(space: BoundSpace, track: Track) -> tuple[int, bool] | None:
    """The number of words, and whether the empty one is among them.

    None where the track is not of this form.

    Raises:
        SpaceError: the shared decisions are too many to go through.
    """
    place = space.space.place
    if space.has_fill or any(collide(place, i, j) for i in track for j in track if i < j):
        return None
    known = list(worlds(space, track))
    alphabets = []
    for entry in track:
        letters = _letters_by_place(space, entry, known)
        if letters is None:
            return None
        alphabets.append(_alphabet(letters))
    optional = isinstance(space.space.layers.tuned, Subset)
    counter = _Counter(known, alphabets, optional)
    return counter.count(), counter.has_empty()


def _letters_by_place(
    space: BoundSpace, entry: int, known: Sequence[World]
) -> dict[Place, frozenset[Letter]] | None:
    """What one entry can show in each group of each world; None if not the same on all layers."""
    found: dict[Place, frozenset[Letter]] = {}
    memory: dict[Any, frozenset[Letter] | None] = {}
    for w, world in enumerate(known):
        own = {name: value for name, value in world.shared.items() if belongs(name, (entry,))}
        for g, (name, layers) in enumerate(world.groups):
            key = (tuple(own.items()), name, layers)
            if key not in memory:
                memory[key] = _letters(space, entry, World(own, world.groups, world.tuned), g)
            letters = memory[key]
            if letters is None:
                return None
            found[w, g] = letters
    return found


def _letters(space: BoundSpace, entry: int, world: World, g: int) -> frozenset[Letter] | None:
    name, layers = world.groups[g]
    tuned = {space.tuned_dimension(name).name: True}
    inside = World({**world.shared, **tuned}, world.groups, world.tuned)
    found = plans(space, (entry,), inside, name, layers)
    if len(layers) == 1:
        return frozenset().union(*(plan[0] for plan in found))
    if any(len(plan[0]) > 1 or len(set(plan)) > 1 for plan in found):
        return None
    return frozenset(letter for plan in found for letter in plan[0])


def _alphabet(by_place: Mapping[Place, frozenset[Letter]]) -> _Alphabet:
    places: dict[Letter, set[Place]] = defaultdict(set)
    for at, letters in by_place.items():
        for letter in letters:
            places[letter].add(at)
    classes: dict[frozenset[Place], list[Letter]] = defaultdict(list)
    for letter, where in places.items():
        if letter:
            classes[frozenset(where)].append(letter)
    index = {letter: i + 1 for i, members in enumerate(classes.values()) for letter in members}
    index[()] = 0
    return _Alphabet(
        (1, *(len(members) for members in classes.values())),
        {at: tuple(sorted({index[x] for x in letters})) for at, letters in by_place.items()},
    )


Worlds = frozenset[int]
State = tuple[Kind | None, Worlds, Worlds]
"""The class of the last letter, the worlds inside a group that shows it, those between groups."""


class _Counter:
    """The determinised automaton over classes."""

    def __init__(
        self, known: Sequence[World], alphabets: Sequence[_Alphabet], optional: bool
    ) -> None:
        self.known, self.alphabets = known, alphabets
        self.absent: Kind = (0,) * len(alphabets)
        self.kinds = {
            (w, g): self._kinds((w, g), optional)
            for w, world in enumerate(known)
            for g in range(len(world.groups))
        }
        self.at = [
            [
                (g, i + 1 == len(layers))
                for g, (_, layers) in enumerate(world.groups)
                for i in range(len(layers))
            ]
            for world in known
        ]

    def _kinds(self, at: Place, optional: bool) -> frozenset[Kind]:
        found = frozenset(product(*(alphabet.possible[at] for alphabet in self.alphabets)))
        return found | {self.absent} if optional else found

    def has_empty(self) -> bool:
        """Whether some world can leave every layer empty."""
        return any(
            all(self.absent in self.kinds[w, g] for g in range(len(world.groups)))
            for w, world in enumerate(self.known)
        )

    def size(self, kind: Kind) -> int:
        """How many letters a class has."""
        return prod(a.sizes[i] for a, i in zip(self.alphabets, kind, strict=True))

    def count(self) -> int:
        """The number of distinct words, the empty one included."""
        states: dict[State, int] = {(None, frozenset(), frozenset(range(len(self.known)))): 1}
        for position in range(len(self.at[0])):
            states = self._advance(states, position)
        return sum(states.values())

    def _advance(self, states: Mapping[State, int], position: int) -> dict[State, int]:
        after: dict[State, int] = defaultdict(int)
        opened: dict[Worlds, dict[Kind, Worlds]] = {}
        for (kind, inside, between), count in states.items():
            if between not in opened:
                opened[between] = self._opened(between, position)
            for other, goals in opened[between].items():
                ways = self.size(other) - (other == kind)
                if ways:
                    after[self._state(other, goals, position)] += ways * count
            if kind is not None:
                goals = inside | opened[between].get(kind, frozenset())
                after[self._state(kind, goals, position)] += count
        return after

    def _opened(self, between: Worlds, position: int) -> dict[Kind, Worlds]:
        """For each class the worlds between groups whose next group can show it."""
        goals: dict[Kind, set[int]] = defaultdict(set)
        for w in between:
            for kind in self.kinds[w, self.at[w][position][0]]:
                goals[kind].add(w)
        return {kind: frozenset(found) for kind, found in goals.items()}

    def _state(self, kind: Kind, goals: Worlds, position: int) -> State:
        ended = frozenset(w for w in goals if self.at[w][position][1])
        inside = goals - ended
        return (kind if inside else None), inside, ended
