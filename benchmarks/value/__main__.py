"""Asks whose recommendation is best after equal training, on text that nobody selected on.

`python -m benchmarks.value` gives every arm 32 full trainings on each data set, takes its picks by
validation accuracy, trains them again with five fresh seeds and scores those on the test split.
What tuned LoRA picks is also trained twice as far, as autopeft recommends of its own picks.
It writes `benchmarks/results/value.json`, anew after every data set of a repetition. `--data` asks
it of a file instead, and `--small` of little data with few trainings, both in `runs/value`.

Every search and every training is a line that is written as soon as it ends, so that an
interrupted comparison goes on where it stopped; delete `value_searches.jsonl` and
`value_retrainings.jsonl` beside the output to start anew.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from dataclasses import dataclass, replace
from importlib.metadata import version
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.rows import Row, rows_of
from benchmarks.value.bench import EPOCHS
from benchmarks.value.figures import Gain, by_arm, gains
from benchmarks.value.runs import (
    ARMS,
    FRESH,
    LONGER,
    REFERENCE,
    Search,
    retrain,
    retrainings,
    search,
)
from benchmarks.value.texts import REPORTED, SIZES, TEXTS, own, title

ROOT = Path(__file__).parent.parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "value.json"
OWN_RESULTS = ROOT / "runs" / "value" / "value.json"
PACKAGES = ("torch", "transformers", "optuna", "botorch")
FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")


@dataclass(frozen=True)
class Extent:
    """How much is run.

    Attributes:
        sets: names of data sets.
        n_train: training examples.
        budget: full trainings of an arm.
        seeds: retrainings of a pick.
    """

    sets: tuple[str, ...] = REPORTED
    repetitions: int = 3
    n_train: int = SIZES["train"]
    budget: int = 32
    seeds: int = 5


SMALL = Extent(REPORTED[:2], repetitions=1, n_train=200, budget=4, seeds=2)


def compare(extent: Extent, arms: list[str], workers: int, output: Path) -> dict[str, Any]:
    """Runs what is missing, one data set of a repetition after the other."""
    searches: list[Row] = []
    tests: list[Row] = []
    report: dict[str, Any] = {}
    for repetition, data in product(range(extent.repetitions), extent.sets):
        orders = [Search(data, repetition, extent.n_train, arm, extent.budget) for arm in arms]
        done = rows_of(orders, search, output.with_name("value_searches.jsonl"), workers)
        again = retrainings(done, extent.seeds)
        searches += done
        tests += rows_of(again, retrain, output.with_name("value_retrainings.jsonl"), workers)
        report = document(extent, arms, searches, gains(searches, tests, extent.seeds))
        output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        show(report)
    return report


def document(
    extent: Extent, arms: list[str], searches: list[Row], found: list[Gain]
) -> dict[str, Any]:
    """All figures."""
    sets = [name for name in extent.sets if any(gain.data == name for gain in found)]
    return {
        "pooled": by_arm(found, [*arms, LONGER]),
        "by_data": {
            title(name): by_arm([gain for gain in found if gain.data == name], [*arms, LONGER])
            for name in sets
        },
        "repetitions": {
            title(name): len({row["repetition"] for row in searches if row["data"] == name})
            for name in sets
        },
        "budget": {
            arm: max(_trainings(row) for row in searches if row["arm"] == arm) for arm in arms
        },
        "seeds": [FRESH + n for n in range(extent.seeds)],
        "machine": machine(),
        "versions": {name: version(name) for name in PACKAGES},
    }


def _trainings(row: Row) -> float:
    """The examples that an arm has processed, in full trainings."""
    return round(sum(trial["epochs"] for trial in row["trials"]) / EPOCHS, 2)


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    path = Path("/proc/cpuinfo")
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    named = {key.strip(): value.strip() for key, value in fields.items()}
    return {
        "cpu": named.get("model name", platform.processor()),
        "flags": [flag for flag in FLAGS if flag in named.get("flags", "").split()],
        "cores": os.cpu_count(),
        "python": platform.python_version(),
    }


def show(report: dict[str, Any]) -> None:
    for name, arms in {"pooled": report["pooled"], **report["by_data"]}.items():
        shown = Table(title=f"{name}: points of test accuracy more than tuned LoRA")
        for column in ("arm", "pick", "gain", "interval", "over best single", "params", "pairs"):
            shown.add_column(column, justify="right")
        for arm, by_pick in arms.items():
            for pick, numbers in by_pick.items():
                shown.add_row(
                    arm,
                    pick,
                    f"{numbers['gain_over_tuned_lora']:+.2f}",
                    " to ".join(f"{end:+.2f}" for end in numbers["interval"] or ()),
                    f"{numbers['gain_over_best_single']:+.2f}",
                    f"× {numbers['params_ratio']:.2f}",
                    str(numbers["pairs"]),
                )
        Console(width=100).print(shown)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Compares recommendations of equal training.")
    parser.add_argument("--sets", nargs="+", choices=TEXTS)
    parser.add_argument("--data", help="a file of labelled texts, instead of the sets")
    parser.add_argument("--text-column", default="text")
    parser.add_argument("--label-column", default="label")
    parser.add_argument("--repetitions", type=int)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--workers", type=int, default=2, help="processes with one thread each")
    parser.add_argument("--small", action="store_true", help="little of all, to try it")
    parser.add_argument("--output", type=Path)
    return parser.parse_args()


def main() -> None:
    chosen = _arguments()
    extent = SMALL if chosen.small else Extent()
    sets = tuple(chosen.sets or extent.sets)
    if chosen.data:
        sets = (own(chosen.data, chosen.text_column, chosen.label_column),)
    repetitions = chosen.repetitions or extent.repetitions
    arms = [arm for arm in ARMS if arm in {*chosen.arms, REFERENCE}]
    if "autopeft_paper" in arms and find_spec("numpyro") is None:
        raise SystemExit("autopeft_paper needs the extra `benchmark`; --arms names others")
    output = chosen.output or (OWN_RESULTS if chosen.small or chosen.data else RESULTS)
    compare(replace(extent, sets=sets, repetitions=repetitions), arms, chosen.workers, output)


if __name__ == "__main__":
    main()
