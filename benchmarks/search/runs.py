"""Runs of samplers on problems."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from autopeft.search.surrogate import one_thread
from benchmarks.rows import rows_of
from benchmarks.search.closed import CLOSED
from benchmarks.search.every_layer import EVERY_LAYER
from benchmarks.search.figures import Run
from benchmarks.search.peers import FLOORS, PEERS, VARIANTS, Peer
from benchmarks.search.problem import Problem, tabular

OTHER_SEEDS, OTHER_TRIALS = 3, 40
OTHER_SAMPLERS = ("bayes", "random", "tpe", "nsga2", "gp")
OTHERS: Mapping[str, Callable[[], Problem]] = {**CLOSED, **EVERY_LAYER}
ALL: Mapping[str, Peer] = {**PEERS, **VARIANTS, **FLOORS}


@dataclass(frozen=True)
class Order:
    """One run that is wanted."""

    problem: str
    sampler: str
    seed: int
    trials: int


def orders(
    tables: Sequence[str],
    samplers: Sequence[str],
    seeds: int,
    trials: int,
    *,
    others: bool,
) -> Iterator[Order]:
    """What is run: on tables as often as a sampler allows, on other problems less."""
    for seed in range(seeds):
        for table, sampler in product(tables, (*samplers, *VARIANTS, *FLOORS)):
            peer = ALL[sampler]
            if seed < (peer.seeds or seeds):
                yield Order(table, sampler, seed, min(trials, peer.trials or trials))
    for seed in range(OTHER_SEEDS if others else 0):
        for problem, sampler in product(OTHERS, OTHER_SAMPLERS):
            if sampler in samplers:
                yield Order(problem, sampler, seed, OTHER_TRIALS)


def named(name: str, folder: Path | None) -> Problem:
    """A table, or another problem."""
    return OTHERS[name]() if name in OTHERS else tabular(name, folder)


def carry_out(folder: Path | None, order: Order) -> dict[str, Any]:
    """One run, with one thread."""
    with one_thread():
        problem = named(order.problem, folder)
        return asdict(ALL[order.sampler].run(problem, order.seed, order.trials))


def run(orders: Sequence[Order], path: Path, workers: int, folder: Path | None = None) -> list[Run]:
    """The runs that are wanted, on the tables in `folder`; those that `path` lacks are done."""
    return rows_of(orders, partial(carry_out, folder), path, workers)
