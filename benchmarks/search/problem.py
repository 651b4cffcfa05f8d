"""What samplers compete on: a table of ours, or a closed form in the same encoding."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from autopeft.core.config import PeftConfig
from autopeft.objective.array import Array
from autopeft.objective.objective import Objective
from autopeft.objective.pareto import hypervolume
from autopeft.objective.quantity import Known
from autopeft.search.history import Observation
from autopeft.space.bound import BoundSpace
from benchmarks.search.measure import Point, bound_space, config_of, points
from benchmarks.search.texts import SHARES, tables

COSTS = ("trainable_params",)
"""What accuracy is weighed against by default."""

BEYOND = 1.1
"""References of costs over the greatest of a table."""

N_EARLIER = 200


@dataclass(frozen=True)
class Problem:
    """A finite or continuous space in which the front is known, or its hypervolume is.

    Attributes:
        space: in which samplers propose.
        objectives: two or more.
        known: how known objectives are computed, by name.
        values: of a configuration, in the order of the objectives.
        best: the greatest hypervolume.
        first: a point that every run begins with, such as the head alone; None for none.
        earlier: what studies of other data have seen in this space.
    """

    name: str
    space: BoundSpace
    objectives: tuple[Objective, ...]
    known: Mapping[str, Known]
    values: Callable[[PeftConfig], tuple[float, ...]]
    best: float
    first: Point | None = None
    earlier: tuple[tuple[Observation, ...], ...] = ()

    def volumes(self, values: Sequence[Sequence[float]]) -> list[float]:
        """The share of the greatest hypervolume after every trial.

        Args:
            values: of the trials, in their order.
        """
        losses = [self.losses(row) for row in values]
        counts = range(1, len(losses) + 1)
        return [hypervolume(losses[:n], self.corner) / self.best for n in counts]

    @property
    def corner(self) -> Array:
        """The losses of the references."""
        return np.array([o.worst for o in self.objectives])

    def losses(self, values: Sequence[float]) -> list[float]:
        """Of values in the order of the objectives."""
        return [o.loss(value) for o, value in zip(self.objectives, values, strict=True)]


class Table:
    """A measured table.

    Args:
        path: of its file.
        space: of its configurations, by default that of three groups.

    Attributes:
        space: of its configurations.
        rows: by point, those of the first seed; cells by column.
        repeats: by point, the rows of all seeds where there are several.
    """

    def __init__(self, path: Path, space: BoundSpace | None = None) -> None:
        self.space = space or bound_space()
        self.rows: dict[Point, Mapping[str, float]] = {}
        self.repeats: dict[Point, list[Mapping[str, float]]] = {}
        with path.open(encoding="utf-8", newline="") as file:
            for cells in csv.DictReader(file):
                row = {name: float(cell) for name, cell in cells.items()}
                point = tuple(int(row[name]) for name in self.space.dimensions)
                self.repeats.setdefault(point, []).append(row)
                if row["seed"] == 0:
                    self.rows[point] = row
        self.repeats = {p: rows for p, rows in self.repeats.items() if len(rows) > 1}

    @property
    def is_whole(self) -> bool:
        """Whether every point of the space has been measured."""
        return len(self.rows) == len(points(self.space))

    @cached_property
    def by_key(self) -> Mapping[str, Mapping[str, float]]:
        """The rows by key of their configuration."""
        return {config_of(self.space, point).key: row for point, row in self.rows.items()}

    def column(self, name: str) -> Array:
        """Of all rows, in one order."""
        return np.array([row[name] for row in self.rows.values()])


def last(metric: str) -> str:
    """The column of a metric at the end of training."""
    return f"{metric}@{len(SHARES)}"


def tabular(name: str, folder: Path | None = None, costs: Sequence[str] = COSTS) -> Problem:
    """Accuracy against what it costs, in a table.

    References are the worst accuracy of the table and a little more than its greatest costs. Every
    run begins with the head alone. The other whole tables of the folder and of the project are
    earlier studies, each of `N_EARLIER` random trials.

    Args:
        name: of the table.
        folder: in which it lies; None is that of the project.
        costs: columns that are known objectives, on a logarithmic scale.

    Raises:
        SystemExit: the table is not whole.
    """
    path = (folder or tables()) / f"{name}.csv"
    table = Table(path)
    if not table.is_whole:
        raise SystemExit(f"{path} is not whole yet; see `python -m benchmarks.search.measure`")
    columns = (last("accuracy"), *costs)
    rows = np.column_stack([table.column(column) for column in columns])
    objectives = (
        Objective("accuracy", "maximize", reference=float(rows[:, 0].min())),
        *(
            Objective(
                cost, "minimize", known=True, scale="log", reference=float(BEYOND * column.max())
            )
            for cost, column in zip(costs, rows.T[1:], strict=True)
        ),
    )

    def values(config: PeftConfig) -> tuple[float, ...]:
        row = table.by_key[config.key]
        return tuple(row[column] for column in columns)

    known = {cost: Known(partial(_cost, table, cost)) for cost in costs}
    losses = [[o.loss(v) for o, v in zip(objectives, row, strict=True)] for row in rows]
    best = hypervolume(losses, [o.worst for o in objectives])
    nothing = tuple(0 for _ in table.space.dimensions)
    paths = {p.stem: p for each in (tables(), path.parent) for p in sorted(each.glob("*.csv"))}
    others = [Table(other) for stem, other in paths.items() if stem != name]
    earlier = tuple(_trials(other, columns, objectives) for other in others if other.is_whole)
    return Problem(name, table.space, objectives, known, values, best, nothing, earlier)


def _trials(
    table: Table, columns: Sequence[str], objectives: Sequence[Objective]
) -> tuple[Observation, ...]:
    """Random trials of a table."""
    return tuple(
        Observation(
            config_of(table.space, point),
            tuple(o.loss(row[column]) for o, column in zip(objectives, columns, strict=True)),
        )
        for point, row in sampled(table)
    )


def sampled(table: Table) -> list[tuple[Point, Mapping[str, float]]]:
    """`N_EARLIER` random rows."""
    rows = sorted(table.rows.items())
    return [rows[i] for i in np.random.default_rng(0).permutation(len(rows))[:N_EARLIER]]


def _cost(table: Table, column: str, config: PeftConfig) -> float:
    return table.by_key[config.key][column]
