"""Compares samplers on measured tables and on closed forms.

`python -m benchmarks.search` runs every sampler on every table with 20 seeds, all with the same
starting points, and some of them with a few seeds on closed forms and on surrogates of the tables,
and writes `benchmarks/results/search.json` and a plot beside it. A proposal that a run has tried
before costs nothing and does not count. `--small` is a few seeds and trials, in `runs/search`.

Every run is a line that is written as soon as it ends, so that an interrupted comparison goes on
where it stopped; delete `benchmarks/results/search_runs.jsonl` and `search_stopped.jsonl` to start
anew.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table as Shown

from benchmarks.search import stopped
from benchmarks.search.closed import CLOSED
from benchmarks.search.every_layer import EVERY_LAYER
from benchmarks.search.figures import Run, figures
from benchmarks.search.peers import FLOORS, PEERS, VARIANTS
from benchmarks.search.plot import draw
from benchmarks.search.race import N_START
from benchmarks.search.runs import orders, run
from benchmarks.search.speed import COUNTS, suggest_seconds
from benchmarks.search.texts import TEXTS

ROOT = Path(__file__).parent.parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "search.json"
RUNS = RESULTS.with_name("search_runs.jsonl")
SMALL = ROOT / "runs" / "search" / "small.json"
SEEDS, TRIALS = 20, 200
SMALL_SEEDS, SMALL_TRIALS, SMALL_COUNTS = 2, 20, (50,)
SMALL_SAMPLERS = ("bayes", "random", "tpe", "nsga2", "nsga3", "gp")
STOPPING_SEEDS, STOPPING_TRIALS = 10, 100
PACKAGES = ("optuna", "torch", "botorch")


def summary(runs: Sequence[Run]) -> dict[str, Any]:
    """The figures of every sampler on every problem."""
    by_problem: dict[str, dict[str, Any]] = {}
    for problem, sampler in dict.fromkeys((row["problem"], row["sampler"]) for row in runs):
        rows = [row for row in runs if (row["problem"], row["sampler"]) == (problem, sampler)]
        by_problem.setdefault(problem, {})[sampler] = figures(rows)
    return by_problem


def _only(by_name: dict[str, Any], names: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in by_name.items() if name in names}


def show(tables: dict[str, Any]) -> None:
    for name, samplers in tables.items():
        shown = Shown(title=f"{name}: trials to a share of the hypervolume, and hypervolume")
        for column in ("sampler", "90 %", "95 %", "95 % interval", "99 %", "at 25", "at 50", "s"):
            shown.add_column(column, justify="right")
        for sampler, numbers in samplers.items():
            to = {share: numbers[f"trials_to_{share}"] for share in (90, 95, 99)}
            low, high = to[95]["interval"]
            at = [numbers.get(f"hypervolume_at_{n}", {}).get("mean", 0.0) for n in (25, 50)]
            shown.add_row(
                sampler,
                *(f"{to[share]['median']:.0f}" for share in (90, 95)),
                f"{low:.0f} to {high:.0f}",
                f"{to[99]['median']:.0f}",
                *(f"{value:.4f}" for value in at),
                f"{numbers['seconds']:.3f}",
            )
        Console(width=100).print(shown)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Compares samplers on measured tables.")
    parser.add_argument("--tables", nargs="+", default=list(TEXTS), help="names in the folder")
    parser.add_argument("--samplers", nargs="+", choices=PEERS)
    parser.add_argument("--small", action="store_true", help="few seeds and trials, to try it")
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--trials", type=int)
    parser.add_argument("--workers", type=int, default=2, help="processes with one thread each")
    parser.add_argument("--runs", type=Path)
    parser.add_argument("--output", type=Path)
    return parser.parse_args()


def main() -> None:
    chosen = _arguments()
    output = chosen.output or (SMALL if chosen.small else RESULTS)
    rows_file = chosen.runs or (SMALL.with_suffix(".jsonl") if chosen.small else RUNS)
    seeds = chosen.seeds or (SMALL_SEEDS if chosen.small else SEEDS)
    trials = chosen.trials or (SMALL_TRIALS if chosen.small else TRIALS)
    samplers = chosen.samplers or (SMALL_SAMPLERS if chosen.small else list(PEERS))
    work = list(orders(chosen.tables, samplers, seeds, trials, others=not chosen.small))
    runs = run(work, rows_file, chosen.workers)
    results = summary(runs)
    document: dict[str, Any] = {
        "machine": {"cores": os.cpu_count(), "python": platform.python_version()},
        "versions": {name: version(name) for name in PACKAGES},
        "starting_points": N_START,
        "tables": {name: _only(results[name], PEERS) for name in chosen.tables},
        "variants": {name: _only(results[name], VARIANTS) for name in chosen.tables},
        "floors": {name: _only(results[name], FLOORS) for name in chosen.tables},
        "closed": _only(results, CLOSED),
        "every_layer": _only(results, EVERY_LAYER),
        "stopping": stopped.figures(
            chosen.tables,
            SMALL_SEEDS if chosen.small else STOPPING_SEEDS,
            SMALL_TRIALS if chosen.small else STOPPING_TRIALS,
            rows_file.with_name(f"{rows_file.stem.removesuffix('_runs')}_stopped.jsonl"),
            chosen.workers,
        ),
        "suggest_seconds": suggest_seconds(SMALL_COUNTS if chosen.small else COUNTS),
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    draw([row for row in runs if row["problem"] in chosen.tables], output.with_suffix(".png"))
    show(results)
    print(json.dumps({name: document[name] for name in ("suggest_seconds", "stopping")}, indent=1))


if __name__ == "__main__":
    main()
