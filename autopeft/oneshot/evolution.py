"""A front found by breeding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice

import numpy as np

from autopeft.objective.pareto import crowding, ranks
from autopeft.oneshot.proposer import Problem
from autopeft.search.candidates import downhill
from autopeft.space.bound import Drawn

P_CROSS = 0.5
"""How many children have two parents; the others are a neighbour of one."""

N_STEPS = 100
"""Of a walk towards the limits."""

Judge = Callable[[Drawn], Sequence[float]]


def evolve(
    problem: Problem, judge: Judge, rng: np.random.Generator, size: int, generations: int
) -> list[Drawn]:
    """All that was met and keeps the limits, the best first.

    That is by rank and, of one rank, by crowding distance. The best of parents and children live.

    Args:
        problem: that of the study.
        judge: gives the losses of a configuration that are not known before training.
        rng: decides.
        size: of a generation.
        generations: after the first, which is random.

    References:
        Deb et al., "A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II", 2002;
        Zhang et al., "Neural Prompt Search", 2022, section 3.3 (crossover and mutation of modules).
    """
    met: dict[str, Drawn] = {}
    losses: dict[str, list[float]] = {}

    def meet(candidates: Sequence[Drawn]) -> None:
        for each in candidates:
            if each.config.key not in losses and problem.allows(each):
                met[each.config.key] = each
                losses[each.config.key] = [*judge(each), *problem.costs(each)]

    meet(_first(problem, rng, size))
    living = _best(losses, [*met], size)
    for _ in range(generations if living else 0):
        meet([_child(problem, [met[key] for key in living], rng) for _ in range(size)])
        living = _best(losses, [*met], size)
    return [met[key] for key in _best(losses, [*met], len(met))]


def _first(problem: Problem, rng: np.random.Generator, size: int) -> list[Drawn]:
    """Random configurations that keep the limits, or what a walk meets that leads there."""
    drawn = [problem.corner(0.0), problem.corner(1.0), *(problem.draw(rng) for _ in range(size))]
    allowed = [each for each in drawn if problem.allows(each)]
    nearest = min(drawn, key=lambda each: problem.excess(each.config))
    walk = downhill(problem.space, rng, nearest, problem.excess, N_STEPS)
    further = filter(problem.allows, map(problem.placed, walk))
    return [*allowed, *islice(further, max(0, size - len(allowed)))]


def _best(losses: dict[str, list[float]], keys: Sequence[str], n: int) -> list[str]:
    """The `n` keys of least rank, of one rank those with most room about them."""
    if not keys:
        return []
    rows = np.array([losses[key] for key in keys])
    rank, room = ranks(rows), np.zeros(len(rows))
    for each in np.unique(rank):
        room[rank == each] = crowding(rows[rank == each])
    order = np.lexsort((-room, rank))
    return [keys[place] for place in order[:n]]


def _child(problem: Problem, living: Sequence[Drawn], rng: np.random.Generator) -> Drawn:
    """A mix of two of the living, or a neighbour of one; earlier ones are better."""
    mother, father = (living[int(rng.integers(len(living), size=2).min())] for _ in range(2))
    if rng.random() < P_CROSS:
        return problem.placed(problem.space.cross(mother, father, rng))
    near = problem.space.near(mother, rng, 1) or [mother]
    return problem.placed(near[0])
