"""A whole study of ours against the same trials through HF `Trainer` and HF peft.

Four sides, each a process of its own whose wall time counts from its launch to its end, all with
two workers of one core each, the same sentences, epochs, learning rates and seed:

- `study ours`: `autopeft run`, every trial trained to its end.
- `study ours stopped`: the same with early stopping, a study of its own with its own proposals.
- `study hf`: the configurations that `study ours` proposed, under plain Ray Tune, each trial a
  process of its own with the defaults of `Trainer`; see `study_equivalent` for what HF peft lacks.
- `study hf tuned`: the same with batches grouped by length, and bf16 where that is faster.

An interrupted side of HF goes on with the trials that are missing. What had finished before then
counts with the seconds of its trials, divided by the workers: the start of an interrupted piece
and what it had half done are not held against that side. Sides of ours start anew.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import sqrt
from pathlib import Path
from statistics import fmean, median, stdev
from typing import TYPE_CHECKING, Any

from benchmarks import study_equivalent, study_floor, study_hf, study_ours
from benchmarks.hf_training import Row
from benchmarks.trial_variants import MAX_LENGTH, MINILM, Size, form_of, task_of

if TYPE_CHECKING:
    from autopeft.core.config import PeftConfig

ROOT = Path(__file__).parent.parent
WORKERS = 2
OURS, STOPPED, HF, TUNED = SIDES = (
    "study ours",
    "study ours stopped",
    "study hf",
    "study hf tuned",
)
FLOOR = "floor"
RATIOS = {
    "study_ratio_without_stopping": (HF, OURS),
    "study_ratio_with_stopping": (HF, STOPPED),
    "tuned_ratio_without_stopping": (TUNED, OURS),
    "tuned_ratio_with_stopping": (TUNED, STOPPED),
}

Study = Mapping[str, Any]


def run(name: str, done: Study, size: Size, folder: Path, environment: Mapping[str, str]) -> Any:
    """One side, or the floor; those of HF and the floor need that `OURS` is done.

    Args:
        name: one of `SIDES`, or `FLOOR`.
        done: what has been run, by name.
        size: of the trials and of the study.
        folder: for files that are not results.
        environment: variables of the processes.
    """
    at = folder / name.replace(" ", "-")
    if name in (OURS, STOPPED):
        task = task_of(size).model_dump(exclude_none=True)
        setting = study_ours.Setting(MINILM, task, size.n_trials, size.epochs, WORKERS)
        return study_ours.run(setting, at, stopping=name == STOPPED, environment=environment)
    configs = configs_of(done[OURS])
    if name == FLOOR:
        return floor(configs, size)
    return hf_side(plan_of(configs, size, folder / "data", name == TUNED), at, environment)


def plan_of(configs: Sequence[PeftConfig], size: Size, data: Path, tuned: bool) -> study_hf.Plan:
    """What the processes of HF are told; the sentences are written into the folder `data`."""
    from datasets import DatasetDict

    from autopeft.core.settings import BackboneSettings, TrainSettings
    from autopeft.model.backbone import meta_backbone
    from autopeft.model.hub import locate

    if not data.is_dir():
        splits = task_of(size).load()
        both = {"train": splits.train, "validation": splits.validation}
        DatasetDict(both).save_to_disk(data)
    model = meta_backbone(MINILM, BackboneSettings(), head="text-classification").model
    equivalents = tuple(study_equivalent.peft_equivalent(config, model) for config in configs)
    warmup = TrainSettings().warmup_ratio
    form = form_of(size, 0.0, warmup, 0, tuned=tuned)
    return study_hf.Plan(str(locate(MINILM, "model")), str(data), form, equivalents, WORKERS)


def hf_side(plan: study_hf.Plan, folder: Path, environment: Mapping[str, str]) -> dict[str, Any]:
    """Runs what is missing in a process of its own: wall seconds, and a row for each trial."""
    if not study_hf.begun(plan, folder):
        shutil.rmtree(folder, ignore_errors=True)
        plan.write(folder)
    before = study_hf.finished(folder)
    command = [sys.executable, "-m", "benchmarks.study_hf", str(folder)]
    variables = {**os.environ, **environment, "PYTHONPATH": str(ROOT)}
    start = time.perf_counter()
    subprocess.run(command, cwd=ROOT, env=variables, check=True, stdout=subprocess.DEVNULL)
    piece = time.perf_counter() - start
    rows = sorted(study_hf.finished(folder), key=lambda row: row["index"])
    if len(rows) < len(plan.trials):
        sys.exit(
            f"{len(rows)} of {len(plan.trials)} trials have finished; run again for the others"
        )
    equivalents = [plan.trials[row["index"]].description for row in rows]
    return {
        "seconds": piece + sum(row["seconds"] for row in before) / plan.workers,
        "trials_of_earlier_pieces": len(before),
        "trials": [
            {**row, "equivalent": text} for row, text in zip(rows, equivalents, strict=True)
        ],
    }


def floor(configs: Iterable[PeftConfig], size: Size) -> dict[str, Any]:
    """Unavoidable operations, rates of this machine, and the seconds of one thread they make."""
    from autopeft.core.settings import BackboneSettings
    from autopeft.model.backbone import load_tokenizer, meta_backbone

    data, tokenizer = task_of(size).load(), load_tokenizer(MINILM)
    train, validation = (
        [
            len(ids)
            for ids in tokenizer(split["text"][:], truncation=True, max_length=MAX_LENGTH).input_ids
        ]
        for split in (data.train, data.validation)
    )
    meta = meta_backbone(MINILM, BackboneSettings(), head="text-classification")
    texts = study_floor.Texts(train, validation)
    parts = study_floor.unavoidable(meta, configs, texts, size.epochs)
    rates = study_floor.rates(WORKERS)
    seconds = {name: sum(parts.values()) / rate for name, rate in rates.items()}
    return {"operations": parts, "rates": rates, "seconds": seconds}


def outcome(done: Study) -> dict[str, Any]:
    """The figures of what has been run: ratios, accuracies, where the time went, the floor."""
    figures: dict[str, Any] = {
        name: done[theirs]["seconds"] / done[ours]["seconds"]
        for name, (theirs, ours) in RATIOS.items()
        if theirs in done and ours in done
    }
    sides = {name: summary(done[name]) for name in SIDES if name in done}
    differences = {
        name: difference(done[OURS], done[name])
        for name in (HF, TUNED)
        if name in done and OURS in done
    }
    figures |= {"study_sides": sides, "accuracy_differences": differences}
    if OURS in done:
        figures["where_the_time_goes"] = done[OURS]["where_the_time_goes"]
    if FLOOR in done:
        spent = WORKERS * done[OURS]["seconds"]
        ratios = {name: spent / least for name, least in done[FLOOR]["seconds"].items()}
        figures |= {"floor_ratio": ratios["square"], "floor_ratio_of_model_shape": ratios["model"]}
    return figures


def summary(side: Study) -> dict[str, Any]:
    """Wall seconds and final accuracies of one side."""
    accuracies = [a for a in map(_accuracy, _trained(side)) if a is not None]
    return {
        "seconds": side["seconds"],
        "trials": len(_trained(side)),
        "trained_to_the_end": len(accuracies),
        "best_accuracy": max(accuracies, default=None),
        "median_accuracy": median(accuracies) if accuracies else None,
    }


def difference(ours: Study, theirs: Study) -> dict[str, Any]:
    """Our final accuracy less theirs, by configuration: the mean and its standard error."""
    pairs = zip(_trained(ours), _trained(theirs), strict=True)
    both = [(_accuracy(a), _accuracy(b)) for a, b in pairs]
    differences = [a - b for a, b in both if a is not None and b is not None]
    error = stdev(differences) / sqrt(len(differences)) if len(differences) > 1 else None
    mean = fmean(differences) if differences else None
    return {"configurations": len(differences), "mean": mean, "standard_error": error}


def configs_of(side: Study) -> list[PeftConfig]:
    """The configurations that a study of ours has trained, in the order of its trials."""
    from autopeft.core.config import PeftConfig

    return [PeftConfig.from_dict(trial["config"]) for trial in _trained(side)]


def _trained(side: Study) -> list[Row]:
    """The trials of a side without those of ours that were rejected before training."""
    return [trial for trial in side["trials"] if trial.get("state") != "rejected"]


def _accuracy(trial: Row) -> float | None:
    """After the last epoch; None where the trial did not get there."""
    return trial.get("accuracy")


def lines(figures: Mapping[str, Any]) -> Iterator[str]:
    """The figures of the sides, their accuracies and where the time of ours went, as text."""
    for name, side in figures["study_sides"].items():
        best, middle = side["best_accuracy"], side["median_accuracy"]
        yield (
            f"{name}: {side['seconds']:.1f} s, {side['trained_to_the_end']} of {side['trials']} "
            f"trials to the end, accuracy {best} at best, {middle} in the median"
        )
    for name, accuracy in figures["accuracy_differences"].items():
        yield f"{OURS} less {name}: accuracy {accuracy['mean']} ± {accuracy['standard_error']}"
    spent = figures.get("where_the_time_goes", {})
    total = sum(spent.values())
    for name, seconds in spent.items():
        yield f"{name}: {seconds:.1f} s of workers, {seconds / total:.1%}"
