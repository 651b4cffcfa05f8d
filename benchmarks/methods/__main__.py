"""Every method on MiniLM: what it counts, what it learns, what a step of it costs.

`python -m benchmarks.methods` trains each for three epochs on 1,000 movie sentences with three
seeds, scores it on 2,000 others, and does the same with the layers of HF peft where it has the
method: the same batches, rates, schedule and optimizer. Then it times single steps by turns with
the forward and backward pass of the frozen model to the same layer, and with HF peft's step, of
random sentences in float32 on one thread. It writes `benchmarks/results/methods.json`, from lines
that are kept as they come; rates are those of the catalog or stand in `entries.py`, and were not
searched.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.methods.entries import ENTRIES
from benchmarks.methods.runs import Steps, Training, time_steps, train
from benchmarks.rows import Row, rows_of
from benchmarks.trial_variants import Size
from benchmarks.value.__main__ import machine
from benchmarks.value.bench import EPOCHS

ROOT = Path(__file__).parent.parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "methods.json"


@dataclass(frozen=True)
class Extent:
    """How much is run."""

    seeds: int = 3
    n_train: int = 1000
    epochs: float = EPOCHS
    n_steps: int = 20
    tokens: int = Size().step_tokens


SMALL = Extent(seeds=1, n_train=32, epochs=1.0, n_steps=1, tokens=16)


def measured(
    extent: Extent, names: Sequence[str], workers: int, output: Path, *, timed: bool
) -> dict[str, Any]:
    """All figures, written to a file."""
    sides = [(name, theirs) for name in names for theirs in (False, True)]
    orders = [
        Training(name, theirs, seed, extent.n_train, extent.epochs)
        for seed in range(extent.seeds)
        for name, theirs in sides
        if ENTRIES[name].peft is not None or not theirs
    ]
    trained = rows_of(orders, train, output.with_name("methods_trainings.jsonl"), workers)
    steps: list[Row] = []
    if timed:
        clocks = [Steps(n, extent.n_steps, extent.tokens) for n in names if _is_tuned(trained, n)]
        steps = rows_of(clocks, time_steps, output.with_name("methods_steps.jsonl"), 1)
    report = {name: _figures(name, trained, steps) for name in names}
    document = {**report, "machine": machine(), "seeds": list(range(extent.seeds))}
    output.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return document


def _is_tuned(trained: Sequence[Row], name: str) -> bool:
    """Whether anything but the head is trained."""
    return any(row["method"] == name and row.get("count") for row in trained)


def _figures(name: str, trained: Sequence[Row], steps: Sequence[Row]) -> dict[str, Any]:
    own = [row for row in trained if row["method"] == name and not row["theirs"]]
    theirs = [row["accuracy"] for row in trained if row["method"] == name and row["theirs"]]
    figures: dict[str, Any] = {
        "count": own[0]["count"],
        "accuracy": round(fmean(row["accuracy"] for row in own), 4),
        "accuracies": [row["accuracy"] for row in own],
    }
    if theirs:
        figures |= {"accuracy_peft": round(fmean(theirs), 4), "accuracies_peft": theirs}
    for row in steps:
        if row["method"] == name:
            figures["step_ratio_frozen"] = round(row["ours"] / row["frozen"], 3)
            if "peft" in row:
                figures["step_ratio_peft"] = round(row["ours_again"] / row["peft"], 3)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", default=list(ENTRIES), choices=list(ENTRIES))
    parser.add_argument("--seeds", type=int, default=None)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--no-steps", action="store_true", help="trainings alone")
    parser.add_argument("--small", action="store_true", help="a minute, into runs/methods")
    parser.add_argument("--output", type=Path, default=None)
    arguments = parser.parse_args()
    extent = SMALL if arguments.small else Extent()
    if arguments.seeds:
        extent = replace(extent, seeds=arguments.seeds)
    small = ROOT / "runs" / "methods" / "methods.json"
    output = arguments.output or (small if arguments.small else RESULTS)
    output.parent.mkdir(parents=True, exist_ok=True)
    timed = not arguments.no_steps
    report = measured(extent, arguments.only, arguments.workers, output, timed=timed)
    for name in arguments.only:
        print(name, json.dumps(report[name]))


if __name__ == "__main__":
    main()
