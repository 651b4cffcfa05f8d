"""How many distinct configurations a space makes, exactly, without listing them.

A configuration is a word: one letter (what is placed there) per layer. The points of a space form
a nondeterministic automaton over these words: a *world* fixes the decisions on which several
groups depend, and inside a world each group follows one *plan*. Counting the words of the
determinised automaton layer by layer counts every configuration once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from autopeft.core.config import freeze
from autopeft.core.errors import SpaceError
from autopeft.space.budget import fill, is_fill
from autopeft.space.count import all_dimensions
from autopeft.space.dimension import Dimension
from autopeft.space.domain import Choice, Subset, Tree, is_open
from autopeft.space.walk import Here, Raw, Walk, option_nodes

if TYPE_CHECKING:
    from autopeft.space.bound import BoundSpace

Letter = tuple[Any, ...]
Plan = tuple[frozenset[Letter], ...]
Ways = Callable[[Walk], Any]

LIMIT = 400_000


@dataclass(frozen=True)
class Track:
    """Entries of `place` that must be counted together.

    Attributes:
        entries: their indices.
    """

    entries: tuple[int, ...]


@dataclass(frozen=True)
class World:
    """One way to take the shared decisions: for each group its layers and its possible plans."""

    groups: tuple[tuple[tuple[int, ...], tuple[Plan, ...]], ...]


def count_configurations(space: BoundSpace) -> int:
    """How many distinct configurations with at least one placement the space makes.

    Raises:
        SpaceError: the shared decisions alone are too many to go through.
    """
    words, empty = 1, True
    for track in tracks(space):
        worlds = list(_worlds(space, track))
        words *= _count_words(worlds, space.n_layers)
        empty = empty and any(_can_be_empty(world) for world in worlds)
    settings = (space.space.train, space.space.backbone)
    kinds = [
        _distinct_values(space, node, name)
        for node, name in zip(settings, ("train", "backbone"), strict=True)
    ]
    return (words - empty) * kinds[0] * kinds[1]


def tracks(space: BoundSpace) -> list[Track]:
    """The entries of `place` in parts that do not depend on one another."""
    document = space.space
    coupled = space.has_fill or len(space.patterns) > 1 or isinstance(document.layers.tuned, Subset)
    if coupled:
        return [Track(tuple(range(len(document.place))))]
    parts: list[list[int]] = []
    for i in range(len(document.place)):
        joined = [i]
        for part in [p for p in parts if any(_collide(document.place, i, j) for j in p)]:
            parts.remove(part)
            joined = part + joined
        parts.append(joined)
    return [Track(tuple(sorted(part))) for part in parts]


def _collide(place: Sequence[Any], i: int, j: int) -> bool:
    """Whether two entries can put equal placements on a layer."""
    return any(_can_equal(a, b) for a in _leaves(place[i]) for b in _leaves(place[j]))


def _leaves(entry: Any) -> Iterator[Tree]:
    if isinstance(entry, Choice):
        for items in entry.items:
            for item in items:
                yield from _leaves(item)
    else:
        yield entry


def _can_equal(a: Tree, b: Tree) -> bool:
    if a["method"] != b["method"]:
        return False
    pairs = zip(sorted(option_nodes(a), key=_name), sorted(option_nodes(b), key=_name), strict=True)
    return not any(x != y and not is_open(x) and not is_open(y) for (_, x), (_, y) in pairs)


def _name(item: tuple[str, Any]) -> str:
    return item[0]


def outcomes(run: Ways, walk: Callable[[Callable[[Dimension], Any]], Walk]) -> Iterator[Any]:
    """Every result of `run`, one for each way to take the decisions that it meets."""
    script: list[int] = []
    while True:
        sizes: list[int] = []
        yield run(walk(_scripted(script, sizes)))
        script = script + [0] * (len(sizes) - len(script))
        while script and script[-1] + 1 == sizes[len(script) - 1]:
            script.pop()
        if not script:
            return
        script[-1] += 1


def _scripted(script: Sequence[int], sizes: list[int]) -> Callable[[Dimension], Any]:
    """Takes the decisions that a script of indices states, then the first value of each."""

    def choose(dimension: Dimension) -> Any:
        values = dimension.values or (dimension.from_unit(0.0),)
        sizes.append(len(values))
        at = len(sizes) - 1
        return values[script[at] if at < len(script) else 0]

    return choose


def shared_choices(space: BoundSpace, track: Track) -> Iterator[dict[str, Any]]:
    """Every way to take the shared decisions of a track.

    Raises:
        SpaceError: there are too many to go through.
    """
    names = tuple(f"{i}{mark}" for i in track.entries for mark in (".", "[", "@"))
    whole = {str(i) for i in track.entries}
    dimensions = [
        d
        for d in all_dimensions(space)
        if d.shared and (d.name.startswith((*names, "layers.", "budget.")) or d.name in whole)
    ]
    total = 1
    for dimension in dimensions:
        total *= len(dimension.values or (0,))
    if total > LIMIT:
        raise SpaceError(
            f"{total} combinations of decisions for the whole space are too many to count",
            space.space.name,
        )

    def take(walk: Walk) -> dict[str, Any]:
        return {dimension.name: walk.pick(dimension) for dimension in dimensions}

    yield from outcomes(take, space.walk)


def _worlds(space: BoundSpace, track: Track) -> Iterator[World]:
    for shared in shared_choices(space, track):
        pattern = shared.get("layers.pattern", space.patterns[0])
        tuned = tuned_layers(space, shared, pattern)
        groups = tuple(
            (layers, _plans(space, track, shared, name, layers, tuned))
            for name, layers in space.partition(pattern)
        )
        yield World(groups)


def tuned_layers(space: BoundSpace, shared: Mapping[str, Any], pattern: str) -> tuple[int, ...]:
    """The layers among which a budget is divided; only asked for where there is one."""
    walk = Walk(space.shape, space.names, lambda d: shared.get(d.name, True), dict(shared))
    return tuple(
        sorted(
            layer
            for name, layers in space.partition(pattern)
            for layer in layers
            if space.is_tuned(walk, Here(name, layer, "group"))
        )
    )


def _plans(
    space: BoundSpace,
    track: Track,
    shared: Mapping[str, Any],
    name: str,
    layers: tuple[int, ...],
    tuned: tuple[int, ...],
) -> tuple[Plan, ...]:
    """Every plan of one group: for each of its layers the letters that can stand there."""
    heres = [Here(name, layer, "group") for layer in layers]

    def walk(choose: Callable[[Dimension], Any]) -> Walk:
        return Walk(space.shape, space.names, choose, dict(shared))

    def plan(outer: Walk) -> Plan:
        return tuple(_letters(space, track, here, outer, tuned) for here in heres)

    return tuple(dict.fromkeys(outcomes(plan, walk)))


def _letters(
    space: BoundSpace, track: Track, here: Here, outer: Walk, tuned: tuple[int, ...]
) -> frozenset[Letter]:
    """The letters that one layer can show once the decisions of its group are taken."""

    def inner(choose: Callable[[Dimension], Any]) -> Walk:
        def route(dimension: Dimension) -> Any:
            by_layer = dimension.name.endswith(f"@layer{here.layer}")
            return choose(dimension) if by_layer else outer.pick(dimension)

        return Walk(space.shape, space.names, route)

    def letter(walk: Walk) -> Letter:
        if not space.is_tuned(walk, here):
            return ()
        return _letter(space, space.layer_placements(walk, here, track.entries), outer, tuned)

    return frozenset(outcomes(letter, inner))


def _letter(space: BoundSpace, raws: list[Raw], outer: Walk, tuned: tuple[int, ...]) -> Letter:
    if any(is_fill(raw) for raw in raws):
        budget = {k: outer.value(v, f"budget.{k}") for k, v in space.space.budget.entries}
        raws = _filled(space, raws, budget, tuned)
    return tuple(sorted(((raw.method, freeze(raw.complete)) for raw in raws), key=repr))


def _filled(
    space: BoundSpace, raws: list[Raw], budget: Mapping[str, Any], tuned: tuple[int, ...]
) -> list[Raw]:
    """Sizes of `fill` as numbers; as shares of the budget where no backbone says the numbers."""
    if space.cost is not None:
        return fill(raws, tuned, budget, space.shape, space.cost)
    rank, n = tuned.index(raws[0].layer), len(tuned)
    part = {
        "uniform": Fraction(1, n),
        "increasing": Fraction(2 * (rank + 1), n * (n + 1)),
        "decreasing": Fraction(2 * (n - rank), n * (n + 1)),
    }[budget.get("allocation", "uniform")]
    share = f"{budget['trainable_params']} * {part}"
    return [
        replace(raw, options={**raw.options, "share": share}) if is_fill(raw) else raw
        for raw in raws
    ]


def _can_be_empty(world: World) -> bool:
    return all(
        any(all(() in letters for letters in plan) for plan in plans) for _, plans in world.groups
    )


State = frozenset[tuple[int, int | None]]


def _count_words(worlds: Sequence[World], n_layers: int) -> int:
    """The number of distinct words, the empty one included.

    A state is the set of (world, plan) that agree with the word so far; the plan is None between
    groups, where any plan of the next group can follow.
    """
    steps = [_Steps(world, n_layers) for world in worlds]
    order = steps[0].order
    if any(step.order != order for step in steps):
        raise AssertionError("worlds of one track divide the layers in the same order")
    states: dict[State, int] = {frozenset((w, None) for w in range(len(worlds))): 1}
    for position in range(len(order)):
        states = _advance(states, steps, position)
    return sum(states.values())


class _Steps:
    """A world read layer by layer."""

    def __init__(self, world: World, n_layers: int) -> None:
        grouped = [layer for layers, _ in world.groups for layer in layers]
        self.order = tuple(grouped)
        self.at = [
            (plans, i, i + 1 == len(layers))
            for layers, plans in world.groups
            for i in range(len(layers))
        ]

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


def _distinct_values(space: BoundSpace, node: Any, name: str) -> int:
    """How many different settings a section makes; a continuous range counts once."""
    values = outcomes(lambda walk: walk.value(node, name), space.walk)
    return len({freeze(value) for value in values})
