"""Writes the trials that come with autopeft from the tables.

`python -m benchmarks.search.experience` takes as many random rows of each table as the comparison
takes of an earlier study.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import autopeft
from benchmarks.search.measure import config_of
from benchmarks.search.problem import Table, last, sampled
from benchmarks.search.texts import TEXTS, tables

FOLDER = Path(autopeft.__file__).parent / "search" / "experience"
METRICS = ("accuracy", "validation_loss")


def document(table: Table) -> dict[str, Any]:
    """The trials of a table with every placement written once."""
    place: list[dict[str, Any]] = []
    trials, settings = [], {}
    for point, row in sampled(table):
        settings = config_of(table.space, point).to_dict()
        placed = []
        for each in settings.pop("place"):
            layers = each.pop("where")
            if each not in place:
                place.append(each)
            placed.append([place.index(each), layers])
        trials.append([placed, [row[last(metric)] for metric in METRICS]])
    return {
        "n_layers": table.space.n_layers,
        "metrics": METRICS,
        "settings": settings,
        "place": place,
        "trials": trials,
    }


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name in TEXTS:
        text = json.dumps(document(Table(tables() / f"{name}.csv")), separators=(",", ":"))
        (FOLDER / f"{name}.json").write_text(text.replace("],[[[", "],\n[[[") + "\n", "utf-8")


if __name__ == "__main__":
    main()
