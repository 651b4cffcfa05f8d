"""Measures gradients before any training for the tables.

`python -m benchmarks.search.probe` writes `tables/gradients.json`: for every data set what each
kind of placement of `three_groups.yaml` yields, layer by layer, in one backward pass.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from autopeft.api.sensitivity import Rows, probed, read_sensitivity
from autopeft.search.sensitivity import Sensitivity, probes
from autopeft.train.trainer import Trainer
from benchmarks.search.measure import MODEL, bound_space
from benchmarks.search.texts import TEXTS, tables


def path() -> Path:
    """Of the file."""
    return tables() / "gradients.json"


@cache
def sensitivities() -> Mapping[str, Sensitivity]:
    """By name of the table."""
    told = json.loads(path().read_text(encoding="utf-8"))
    return {name: read_sensitivity(rows) for name, rows in told.items()}


def _probed(name: str) -> Rows:
    """What the kinds of placements yield."""
    return probed(
        Trainer(MODEL, TEXTS[name].task(), device="cpu", threads=1), probes(bound_space())
    )


def main() -> None:
    document = {name: _probed(name) for name in TEXTS}
    path().write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
