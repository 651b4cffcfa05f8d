"""Counts the words of a nondeterministic automaton, each once.

A configuration is a word: one letter (what is placed there) per layer. The worlds and plans of a
track spell the same word in many ways; the determinised automaton, built layer by layer, counts it
once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from autopeft.space.worlds import Letter, Plan

Planned = tuple[tuple[int, tuple[Plan, ...]], ...]
"""A world as its groups: how many layers each has, and its plans."""

State = frozenset[tuple[int, int | None]]


def count_words(worlds: Sequence[Planned]) -> int:
    """The number of distinct words, the empty one included.

    A state is the set of (world, plan) that agree with the word so far; the plan is None between
    groups, where any plan of the next group can follow.
    """
    steps = [_Steps(world) for world in worlds]
    states: dict[State, int] = {frozenset((w, None) for w in range(len(worlds))): 1}
    for position in range(len(steps[0].at)):
        states = _advance(states, steps, position)
    return sum(states.values())


class _Steps:
    """A world read layer by layer."""

    def __init__(self, world: Planned) -> None:
        self.at = [(plans, i, i + 1 == n) for n, plans in world for i in range(n)]

    def follow(self, position: int, plan: int | None) -> Iterator[tuple[Letter, int | None]]:
        """Each letter that can stand at a position, and the plan that it leaves."""
        plans, i, last = self.at[position]
        for p in range(len(plans)) if plan is None else (plan,):
            for letter in plans[p][i]:
                yield letter, None if last else p


def _advance(
    states: Mapping[State, int], steps: Sequence[_Steps], position: int
) -> dict[State, int]:
    """One layer further.

    Words whose states share the same worlds between groups take the same letters there, so these
    are counted together; letters that a world inside a group also allows are corrected one by one.
    """
    after: dict[State, int] = defaultdict(int)
    between: dict[State, int] = defaultdict(int)
    opened: dict[State, dict[Letter, State]] = {}
    for state, count in states.items():
        free = frozenset(item for item in state if item[1] is None)
        between[free] += count
        if free not in opened:
            opened[free] = _letters_of(free, steps, position)
        if len(free) < len(state):
            for letter, goal in _letters_of(state - free, steps, position).items():
                alone = opened[free].get(letter)
                if alone is not None:
                    after[alone] -= count
                    goal = goal | alone
                after[goal] += count
    for free, count in between.items():
        for goal in opened[free].values():
            after[goal] += count
    return {state: count for state, count in after.items() if count}


def _letters_of(state: State, steps: Sequence[_Steps], position: int) -> dict[Letter, State]:
    goals: dict[Letter, set[tuple[int, int | None]]] = defaultdict(set)
    for world, plan in state:
        for letter, left in steps[world].follow(position, plan):
            goals[letter].add((world, left))
    return {letter: frozenset(goal) for letter, goal in goals.items()}
