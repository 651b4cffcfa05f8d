"""Breaks running studies and inputs on purpose and counts what that costs.

`python -m benchmarks.faults` runs a small study of real trainings again and again, kills its
driver, its workers, Ray's daemons and PostgreSQL's server at random moments, interrupts it as users
do, and lets another process go on each time. Recovery is the time from a fault to the next report
of a training, the start of another process included. Then it breaks spaces, studies, data, models
and command lines at random places; each is to end with exit code 2 and one line, and nothing
written, unless it means something after all. What ends otherwise is left in `runs/faults`. Spaces
are also read for ten minutes in one process, where an error of any other kind counts. Last it times
commands and a proposal where a study has ten thousand trials of 64 workers. It writes
`benchmarks/results/faults.json` and `docs/faults.md` from rows that are kept as they come.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.faults.dsl import Fuzz, fuzzed
from benchmarks.faults.inputs import orders as inputs
from benchmarks.faults.inputs import refused
from benchmarks.faults.kills import Disturbed, disturbed
from benchmarks.faults.large import Large, large
from benchmarks.faults.page import page
from benchmarks.rows import Row, rows_of
from benchmarks.value.__main__ import machine

ROOT = Path(__file__).parent.parent.parent
RESULTS, PAGE = ROOT / "benchmarks" / "results" / "faults.json", ROOT / "docs" / "faults.md"
CASES = (
    ("inline", "sqlite", "halving"),
    ("inline", "sqlite", "synchronous_halving"),
    ("ray", "sqlite", "halving"),
    ("ray", "sqlite", "synchronous_halving"),
    ("ray", "postgresql", "halving"),
)
N_FAULTS = 10


def of_studies(rows: list[Row]) -> dict[str, Any]:
    """All faults, and what they cost."""
    injected: Counter[str] = Counter()
    for row in rows:
        injected.update(row["injected"])
    ended = [row["same_end"] for row in rows if "same_end" in row]
    return {
        "injected": injected.total(),
        "by_kind": dict(sorted(injected.items())),
        "studies": len(rows),
        "trials": sum(row["trials"] for row in rows),
        "trials_lost": sum(row["lost"] for row in rows),
        "trials_repeated": sum(row["repeated"] for row in rows),
        "stuck": sum(row["stuck"] for row in rows),
        "left_behind": sum(row["left_behind"] for row in rows),
        "longest_recovery": max(row["longest_recovery"] for row in rows),
        "same_end": f"{sum(ended)} of {len(ended)}",
    }


def of_inputs(rows: list[Row]) -> dict[str, Any]:
    """How the broken inputs ended."""
    wrong = [each for row in rows for each in row["wrong"]]
    refused_by_kind: Counter[str] = Counter()
    for row in rows:
        refused_by_kind[row["kind"]] += row["refused"]
    return {
        "bad_inputs": refused_by_kind.total() + len(wrong),
        "bad_inputs_by_kind": dict(refused_by_kind),
        "not_bad_after_all": sum(row["accepted"] for row in rows),
        "tracebacks": sum("traceback" in each["wrong"] for each in wrong),
        "otherwise": len(wrong),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=2, help="of each case")
    parser.add_argument("--inputs", type=int, default=150, help="of each kind")
    parser.add_argument("--seconds", type=float, default=600, help="for broken spaces, in process")
    parser.add_argument("--trials", type=int, default=10_000, help="of a large study")
    parser.add_argument("--only", nargs="+", choices=("inline", "ray"), default=("inline", "ray"))
    parser.add_argument("--output", type=Path, default=RESULTS)
    chosen = parser.parse_args()
    orders = [
        Disturbed(*case, N_FAULTS, seed)
        for seed in range(chosen.studies)
        for case in CASES
        if case[0] in chosen.only
    ]
    document: dict[str, Any] = {}
    if orders:
        rows = rows_of(orders, disturbed, chosen.output.with_name("faults_studies.jsonl"), 1)
        document |= of_studies(rows)
    if chosen.inputs:
        file = chosen.output.with_name("faults_inputs.jsonl")
        document |= of_inputs(rows_of([*inputs(chosen.inputs)], refused, file, 1))
    if chosen.seconds:
        file = chosen.output.with_name("faults_dsl.jsonl")
        (row,) = rows_of([Fuzz(chosen.seconds)], fuzzed, file, 1)
        document["dsl"] = {key: row[key] for key in ("seconds", "documents", "errors")}
    if chosen.trials:
        sizes = [Large(storage, chosen.trials) for storage in ("sqlite", "postgresql")]
        rows = rows_of(sizes, large, chosen.output.with_name("faults_large.jsonl"), 1)
        document["large"] = chosen.trials
        document["seconds"] = {
            command: {row["storage"]: row["seconds"][command] for row in rows}
            for command in rows[0]["seconds"]
        }
    document["machine"] = machine()
    chosen.output.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    if chosen.output == RESULTS:
        PAGE.write_text(page(document), encoding="utf-8")
    print(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
