"""Measures gradients before any training for the tables.

`python -m benchmarks.search.probe` writes `tables/gradients.json`: for every data set what each
kind of placement of `three_groups.yaml` yields, layer by layer, in one backward pass.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from autopeft.core.config import PeftConfig
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
    return {
        name: Sensitivity.of((PeftConfig.from_dict(row["config"]), row["squares"]) for row in rows)
        for name, rows in told.items()
    }


def probed(name: str) -> list[dict[str, Any]]:
    """What the kinds of placements yield."""
    trainer = Trainer(MODEL, TEXTS[name].task(), device="cpu", threads=1)
    return [
        {
            "config": config.to_dict(),
            "squares": [float(f"{square:.4g}") for square in trainer.squared_gradients(config)],
        }
        for config in probes(bound_space())
    ]


def main() -> None:
    document = {name: probed(name) for name in TEXTS}
    path().write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
