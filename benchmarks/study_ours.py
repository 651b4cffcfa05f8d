"""One side of the comparison of studies: `autopeft run` with a study file.

What is read afterwards is what the record of the study holds.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any

import yaml

from benchmarks.hf_training import Row

FIRST_RUNG, REDUCTION = 3 / 16, 4
"""With stopping: epochs until trials are compared for the first time; one of how many goes on."""

NAME = "layer-mix-32"
MADE = {"backbones", "tokens"}
"""What studies keep in the cache; the others are downloads."""


@dataclass(frozen=True)
class Setting:
    """What both of our sides train.

    Attributes:
        task: the section of the study file.
        epochs: of a trial that is not stopped.
        workers: trials at a time, each on one core.
    """

    model: str
    task: Mapping[str, Any]
    n_trials: int
    epochs: int
    workers: int
    seed: int = 0


def study_file(setting: Setting, folder: Path, stopping: bool) -> Path:
    """Writes the study file of one side; its record and tensors lie in `folder`."""
    fidelity: dict[str, Any] = {"epochs": float(setting.epochs), "stopper": "none"}
    if stopping:
        rungs = [FIRST_RUNG, float(setting.epochs)]
        fidelity = {"epochs": rungs, "reduction": REDUCTION, "stopper": "halving"}
    document = {
        "name": NAME,
        "model": setting.model,
        "task": dict(setting.task),
        "space": "layer-mix",
        "objectives": "accuracy-params-memory",
        "search": {
            "sampler": "bayes",
            "n_trials": setting.n_trials,
            "seed": setting.seed,
            "n_finalists": 0,
        },
        "fidelity": fidelity,
        "engine": {"type": "ray", "concurrency": setting.workers, "resources": {"cpu": 1}},
        "storage": f"sqlite:///{folder}/study.db",
        "output": str(folder / "output"),
        "device": "cpu",
    }
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    return path


def run(
    setting: Setting, folder: Path, *, stopping: bool, environment: Mapping[str, str]
) -> dict[str, Any]:
    """Runs one side from nothing: its wall seconds, its trials, and where the time went."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    path = study_file(setting, folder, stopping)
    command = [str(Path(sys.executable).parent / "autopeft"), "run", str(path), "--json"]
    cache = fresh_cache(setting.task, folder / "cache")
    variables = {**os.environ, **environment, "AUTOPEFT_CACHE": str(cache)}
    launched, start = datetime.now(), time.perf_counter()
    subprocess.run(command, env=variables, check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - start
    rows = trials(path, launched)
    spent = where_the_time_goes(seconds, rows, saving_seconds(folder), setting.workers)
    return {"seconds": seconds, "trials": rows, "where_the_time_goes": spent}


def fresh_cache(task: Mapping[str, Any], folder: Path) -> Path:
    """A cache that holds the sentences as they were fetched, and nothing that a study makes."""
    from autopeft.model.cache import cache_folder
    from autopeft.task.text_classification import TextClassification

    TextClassification(**task).load()
    shutil.copytree(cache_folder(), folder, ignore=lambda *_: MADE)
    return folder


def trials(path: Path, launched: datetime) -> list[Row]:
    """Every trial that has ended, in order of number.

    `asked` and `ended` are in seconds since `launched`, `seconds` is the time from the end of its
    proposal, `trained_parameters` counts the head.
    """
    from autopeft.api.outcome import open_study
    from autopeft.core.settings import BackboneSettings
    from autopeft.memory.quantities import head_params
    from autopeft.model.backbone import meta_backbone
    from autopeft.study.record import find_record

    outcome = open_study(str(path))
    record = find_record(outcome.spec.storage_url, outcome.spec.name)
    frozen = record.get_trials(deepcopy=False)
    head = head_params(meta_backbone(outcome.spec.model, BackboneSettings()))
    return [
        {
            "number": trial.number,
            "state": trial.state,
            "error": trial.error,
            "config": trial.config.to_dict(),
            "accuracy": trial.values.get("accuracy"),
            "trained_parameters": head + trial.known.get("trainable_params", 0),
            "seconds": trial.seconds,
            "asked": _since(launched, frozen[trial.number].datetime_start),
            "ended": _since(launched, frozen[trial.number].datetime_complete),
            "reports": [{"epochs": r.fidelity, **r.metrics} for r in trial.reports],
        }
        for trial in outcome.trials
        if trial.state not in ("running", "waiting")
    ]


def _since(launched: datetime, moment: datetime | None) -> float | None:
    return None if moment is None else (moment - launched).total_seconds()


def saving_seconds(folder: Path) -> float:
    """Seconds that writing the tensors of all trials takes, measured by writing them again."""
    from safetensors.torch import load_file, save_file

    from autopeft.train.member_training import STATE_FILE

    start, reading = time.perf_counter(), 0.0
    for path in sorted(folder.rglob(STATE_FILE)):
        begin = time.perf_counter()
        state = load_file(path)
        reading += time.perf_counter() - begin
        save_file(state, folder / "again")
    return time.perf_counter() - start - reading


def where_the_time_goes(
    seconds: float, rows: Sequence[Row], saving: float, workers: int
) -> dict[str, float]:
    """Seconds of all workers by what they were spent on; they sum to `workers * seconds`.

    `start` is what comes before the first proposal, and by how much the first trials, with which
    workers load their backbone, take longer beside training than the others. `idle` is the rest:
    handing over, attaching, waiting for one another, ending.
    """
    trained = [row for row in rows if row["reports"]]
    beside = [row["seconds"] - _spent(row, "train") - _spent(row, "eval") for row in trained]
    usual = median(beside[workers:] or [0.0])
    parts = {
        "start": workers * min(row["asked"] for row in rows)
        + sum(max(0.0, each - usual) for each in beside[:workers]),
        "proposals": sum(row["ended"] - row["asked"] - (row["seconds"] or 0.0) for row in rows),
        "training": sum(_spent(row, "train") for row in trained),
        "evaluation": sum(_spent(row, "eval") for row in trained),
        "saving": saving,
    }
    return {**parts, "idle": workers * seconds - sum(parts.values())}


def _spent(row: Row, on: str) -> float:
    return sum((float(report[f"{on}_seconds"]) for report in row["reports"]), start=0.0)
