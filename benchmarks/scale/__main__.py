"""Drives the real study, sampler and stopper with simulated workers.

`python -m benchmarks.scale` runs studies of the space `layer-mix` with three objectives and three
rungs. Each is a process of its own (but with `--small`) that takes real decisions and keeps the
real record, while training takes simulated time: a trial follows the recorded curve of the
configuration nearest to its own, with the noise of a seed, and takes longer the deeper it trains.
`trainable_params` is counted as always; `peak_memory` is looked up, since tracing it costs the same
at every scale.

Every finished row is written at once, so that an interrupted run continues where it stopped; delete
the file of results to start anew. Times of decisions are processor seconds.

- makespan, lower bound: simulated seconds, the latter the greater of all work over the number of
  workers and the longest trial; `idle_share` is of the workers' time.
- `seconds_per.<decision>.<n>`: mean of the last 50 up to the n-th.
- `statements_per_trial`, `commits_per_trial`, `bytes_per_trial`: what the record costs.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import sqlalchemy
from rich.console import Console
from rich.table import Table

from autopeft.core.config import PeftConfig
from autopeft.method.count import count
from autopeft.objective.objective import load_objectives
from autopeft.objective.quantity import Known
from autopeft.search.sampler import SAMPLERS, Problem, make_sampler
from autopeft.search.stoppers import Fidelity, make_stopper
from autopeft.space.bound import BoundSpace
from autopeft.study.record import open_record
from autopeft.study.study import Study
from autopeft.study.terms import Terms
from benchmarks.scale.record import CURVES, RUNGS, bound_space
from benchmarks.scale.replay import Replay
from benchmarks.scale.simulation import Simulation

ROOT = Path(__file__).parent.parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "scale.json"
OBJECTIVES, REDUCTION = "accuracy-params-memory", 3.0
COUNTS = (100, 1_000, 10_000)

Row = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """One study."""

    workers: int
    trials: int
    sampler: str


CASES = (
    Case(8, 1_000, "random"),
    Case(64, 10_000, "random"),
    Case(1_000, 10_000, "random"),
    Case(8, 1_000, "tpe"),
    Case(64, 1_000, "tpe"),
    Case(1_000, 10_000, "tpe"),
    Case(1_000, 10_000, "nsga2"),
    Case(8, 200, "bayes"),
    Case(64, 300, "bayes"),
)
SMALL = (Case(4, 30, "random"), Case(16, 40, "nsga2"))


def simulate(case: Case, url: str, curves: Path, *, seed: int, charge: bool) -> Row:
    """The figures of one study."""
    space, replay, empty = bound_space(), Replay(curves, seed), stored_bytes(url)
    wall, processor = time.perf_counter(), time.process_time()
    with make_study(case, url, space, replay, seed) as study:
        objectives = study.objectives
        stopper = make_stopper("halving", Fidelity(RUNGS, REDUCTION, objectives))
        simulation = Simulation(study, stopper, replay, charge)
        with simulation.meter.counted():
            outcome = simulation.run(case.workers)
        states = [trial.state for trial in study.trials()]
    meter, bound = simulation.meter, outcome.lower_bound(case.workers)
    return {
        **asdict(case),
        "charged": charge,
        "states": {state: states.count(state) for state in sorted(set(states))},
        "makespan": outcome.makespan,
        "lower_bound": bound,
        "makespan_ratio": outcome.makespan / bound,
        "idle_share": outcome.idle_share(case.workers),
        "decisions": meter.n_decisions,
        "decisions_per_second": meter.n_decisions / meter.total,
        "seconds_per": {kind: meter.at(kind, COUNTS) for kind in meter.seconds},
        "statements_per_trial": meter.statements / case.trials,
        "commits_per_trial": meter.commits / case.trials,
        "bytes_per_trial": (stored_bytes(url) - empty) / case.trials,
        "peak_rss": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        "processor_seconds": time.process_time() - processor,
        "wall_seconds": time.perf_counter() - wall,
    }


def make_study(case: Case, url: str, space: BoundSpace, replay: Replay, seed: int) -> Study:
    """The study of a case in a new record."""
    objectives = load_objectives(OBJECTIVES)

    def trainable(config: PeftConfig) -> int:
        return count(config, space.shape).trainable

    known = {
        "trainable_params": Known(trainable),
        "peak_memory": Known(lambda config: replay.peak_memory(config, trainable(config))),
    }
    sampler = make_sampler(case.sampler, Problem(space, objectives, known, seed=seed))
    name = f"scale-{case.workers}-{case.trials}-{case.sampler}-{time.time_ns()}"
    record = open_record(url, name, objectives, sampler)
    terms = Terms(known, {}, case.trials, seed, RUNGS, "runs")
    return Study(record, space, objectives, terms)


def stored_bytes(url: str) -> int:
    """The size of the database; of no file none."""
    if url.startswith("sqlite:///"):
        file = Path(url.removeprefix("sqlite:///"))
        return file.stat().st_size if file.is_file() else 0
    with sqlalchemy.create_engine(url).connect() as connection:
        query = sqlalchemy.text("SELECT pg_database_size(current_database())")
        return int(connection.execute(query).scalar_one())


def in_new_process(case: Case, chosen: argparse.Namespace) -> Row:
    """The row of a case, whose memory is its own."""
    command = [sys.executable, "-m", "benchmarks.scale", "--case", json.dumps(asdict(case))]
    command += ["--curves", str(chosen.curves), "--seed", str(chosen.seed)]
    command += ["--charge"] if chosen.charge else []
    command += ["--storage", chosen.storage] if chosen.storage else []
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, check=True)
    row: Row = json.loads(done.stdout.splitlines()[-1])
    return row


def run_case(case: Case, chosen: argparse.Namespace) -> Row:
    with tempfile.TemporaryDirectory() as folder:
        url = chosen.storage or f"sqlite:///{folder}/study.db"
        return simulate(case, url, chosen.curves, seed=chosen.seed, charge=chosen.charge)


def machine() -> dict[str, Any]:
    """What the times depend on; `load` is the mean number of running processes before."""
    packages = ("optuna", "sqlalchemy", "numpy", "botorch")
    return {
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        "versions": {name: version(name) for name in packages},
    }


def run_all(cases: tuple[Case, ...], chosen: argparse.Namespace) -> dict[str, Any]:
    """Runs what the file of results lacks; the whole document."""
    document: dict[str, Any] = {"machine": machine(), "rows": []}
    if chosen.output.is_file():
        document = json.loads(chosen.output.read_text(encoding="utf-8"))
    done = [tuple(row[key] for key in (*asdict(SMALL[0]), "charged")) for row in document["rows"]]
    for case in cases:
        if (*asdict(case).values(), chosen.charge) not in done:
            row = run_case(case, chosen) if chosen.small else in_new_process(case, chosen)
            document["rows"].append(row)
            write(chosen.output, document)
    return document


def write(output: Path, document: Mapping[str, Any]) -> None:
    output.parent.mkdir(parents=True, exist_ok=True)
    unfinished = output.with_suffix(".part")
    unfinished.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    unfinished.replace(output)


def table(rows: list[Row]) -> Table:
    shown = Table(title="Studies in simulated time")
    columns = ("sampler", "workers", "trials", "makespan", "/ bound", "idle", "decisions/s")
    for name in (*columns, "ms ask", "ms report", "SQL/trial", "kB/trial", "MB"):
        shown.add_column(name, justify="right")
    for row in rows:
        last = {kind: list(by.values()) for kind, by in row["seconds_per"].items()}
        times = [f"{1000 * last[kind][-1]:.1f}" if last[kind] else "" for kind in ("ask", "report")]
        shown.add_row(
            row["sampler"],
            f"{row['workers']:,}",
            f"{row['trials']:,}",
            f"{row['makespan']:,.0f} s",
            f"{row['makespan_ratio']:.3f}",
            f"{row['idle_share']:.1%}",
            f"{row['decisions_per_second']:.0f}",
            *times,
            f"{row['statements_per_trial']:.0f}",
            f"{row['bytes_per_trial'] / 1000:.1f}",
            f"{row['peak_rss'] / 1e6:,.0f}",
        )
    return shown


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Studies with simulated workers.")
    parser.add_argument("--case", type=json.loads, help="run it here and print its row")
    parser.add_argument("--sampler", choices=SAMPLERS, help="only the cases with this sampler")
    parser.add_argument("--charge", action="store_true", help="decisions take their wall time")
    parser.add_argument("--storage", help="URL of a database; by default a new SQLite file")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--curves", type=Path, default=CURVES)
    parser.add_argument("--small", action="store_true", help="few trials, to try the script")
    parser.add_argument("--output", type=Path, default=RESULTS)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    chosen = parsed(arguments)
    if chosen.case:
        print(json.dumps(run_case(Case(**chosen.case), chosen)))
        return
    cases = SMALL if chosen.small else CASES
    chosen_cases = tuple(c for c in cases if chosen.sampler in (None, c.sampler))
    Console(width=120).print(table(run_all(chosen_cases, chosen)["rows"]))


if __name__ == "__main__":
    main()
