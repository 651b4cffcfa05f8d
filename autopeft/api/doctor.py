"""What this machine can do, and what is odd about a study before it costs anything."""

from __future__ import annotations

import platform
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from math import sqrt
from typing import Any, Literal

import numpy as np
import torch

from autopeft.api.pace import Pace, pace
from autopeft.api.run import Prepared, prepare
from autopeft.api.workers import engine_of, worker_memory, workers_here
from autopeft.core import host
from autopeft.core.catalog import Reference
from autopeft.core.errors import AutoPeftError, StudyError
from autopeft.core.quantity import duration, prefixed
from autopeft.model.backbone import check_checkpoint
from autopeft.model.cache import cache_folder
from autopeft.model.positions import positions
from autopeft.model.precision import fast_dtype, target_device
from autopeft.search.candidates import least
from autopeft.study.spec import FidelitySection, Search, StudySpec, load_spec
from autopeft.task.custom import Custom
from autopeft.task.data import Data
from autopeft.task.tokens import Examples

PACKAGES = ("autopeft", "torch", "transformers", "peft", "optuna", "ray", "bitsandbytes")
FEW_BYTES = 5e9
"""Of disk, with which caches and tensors may not find room."""

LOST = 0.02
"""Share of the tokens of training that may be cut without a word."""

MARGIN = 0.06
"""Half the width of the interval of an accuracy that may be so wide without a word."""

LARGEST = 0.8
"""Share of the largest class from which on accuracy says little."""

LONG = 24 * 3600.0
"""Seconds of a study that are worth a word."""


@dataclass(frozen=True)
class Finding:
    """Something to know before a study runs.

    Attributes:
        level: an `error` keeps it from running.
        what: as a sentence.
        remedy: what to do about it.
    """

    level: Literal["warning", "error"]
    what: str
    remedy: str = ""


@dataclass(frozen=True)
class Diagnosis:
    """What a look at the machine and at a study has found.

    Attributes:
        machine: its facts by name.
        study: those of the study, none without one.
        findings: what is odd; none where all is well.
    """

    machine: Mapping[str, str]
    study: Mapping[str, str]
    findings: tuple[Finding, ...]

    @property
    def is_ill(self) -> bool:
        """Whether anything keeps the study from running."""
        return any(finding.level == "error" for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """The diagnosis as plain values for JSON."""
        return asdict(self)


def doctor(
    study: Reference | StudySpec | None = None, changes: Mapping[str, Any] | None = None
) -> Diagnosis:
    """Looks at this machine and, without running it, at a study.

    A few steps of one training tell how long the study takes.

    Args:
        study: name of the catalog, path, mapping, or a loaded one; None is the machine alone.
        changes: values by dotted key that replace those of the file.
    """
    machine, findings = _machine(), list(_of_machine())
    if study is None:
        return Diagnosis(machine, {}, tuple(findings))
    told: dict[str, str] = {}
    try:
        spec = study if isinstance(study, StudySpec) else load_spec(study, changes)
        prepared = prepare(spec)
        _check_runs(prepared)
        data = prepared.task.load()
        prepared.check_record(data)
        told["task"] = prepared.task.type
        told["space"] = f"{prepared.space.assignments or 'infinitely many'} configurations"
        examples = prepared.examples(data)
        findings += findings_of(prepared, data, examples)
        sizes = (f"{of['examples']:,} {split}" for split, of in examples.extent.items())
        told["examples"] = ", ".join(sizes)
        if is_timed(prepared):
            took = pace(prepared, data, examples)
            told |= took.told(*terms_of(prepared))
            findings += _of_time(prepared, took)
    except AutoPeftError as error:
        findings.append(Finding("error", str(error)))
    return Diagnosis(machine, told, tuple(findings))


def _check_runs(prepared: Prepared) -> None:
    """Refuses what a run refuses before it reads data.

    Raises:
        StudyError: weights that the model lacks, or a device that this machine lacks.
    """
    spec = prepared.spec
    check_checkpoint(spec.model, prepared.setting.backbone)
    engine_of(spec, prepared.setting)
    lacks = prepared.setting.device == "cuda" and not torch.cuda.is_available()
    if lacks and spec.engine.address is None:
        raise StudyError("trials ask for a GPU, and this machine has none", f"{spec.place}: engine")


def is_timed(prepared: Prepared) -> bool:
    """Whether a few steps here tell how long the study takes."""
    is_here = prepared.spec.engine.address is None
    has_device = prepared.setting.device == "cpu" or torch.cuda.is_available()
    return is_here and has_device and not isinstance(prepared.task, Custom)


def terms_of(prepared: Prepared) -> tuple[Search, FidelitySection, int, int]:
    """What `Pace` takes of a study."""
    spec = prepared.spec
    workers = workers_here(spec, prepared.setting)
    return spec.search, spec.fidelity, len(prepared.rungs), workers


def findings_of(prepared: Prepared, data: Data, examples: Examples) -> Iterator[Finding]:
    """What is odd about the data of a study, and about the memory that it takes."""
    yield from _of_data(prepared, data, examples)
    yield from _of_memory(prepared)


def _machine() -> dict[str, str]:
    versions = ", ".join(f"{name} {_version(name)}" for name in PACKAGES)
    device = target_device("auto")
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(0)
        memory = _bytes(properties.total_memory)
        found = f"{torch.cuda.device_count()} x {properties.name}, {memory} each"
    else:
        found = "none, trials run on the CPU"
    free = shutil.disk_usage(_existing(cache_folder())).free
    return {
        "python": platform.python_version(),
        "packages": versions,
        "cores": str(host.cores()),
        "memory": _bytes(host.memory()),
        "gpu": found,
        "fastest precision": str(fast_dtype(device)).removeprefix("torch."),
        "cache": f"{cache_folder()}, {_bytes(free)} free",
    }


def _of_machine() -> Iterator[Finding]:
    free = shutil.disk_usage(_existing(cache_folder())).free
    if free < FEW_BYTES:
        where = f"{_bytes(free)} are free at {cache_folder()}"
        yield Finding("warning", where, "set AUTOPEFT_CACHE to a folder on a larger disk")
    if torch.version.cuda and not torch.cuda.is_available():
        told = f"torch is built for CUDA {torch.version.cuda} and finds no device"
        yield Finding("warning", told, "look at nvidia-smi, and at CUDA_VISIBLE_DEVICES")
    for name in PACKAGES:
        if _version(name) == "is missing":
            yield Finding("error", f"{name} is missing", f"pip install {name}")


def _of_data(prepared: Prepared, data: Data, examples: Examples) -> Iterator[Finding]:
    if "train" not in examples.splits:
        return
    yield from _of_classes(data, [objective.name for objective in prepared.objectives])
    cut = examples.splits["train"].cut
    if cut is not None and int(cut.lost.sum()) > LOST * int(cut.whole.sum()):
        share = int(cut.lost.sum()) / int(cut.whole.sum())
        enough = int(np.quantile(cut.whole.numpy(), 0.99))
        most = min(enough, positions(prepared.setting.backbone.model))
        told = f"max_length {prepared.task.max_length} cuts {share:.0%} of the tokens of training"
        holds = "the longest that the model takes" if most < enough else "holds 99 % of the texts"
        yield Finding("warning", told, f"task.max_length: {most} {holds}")
    n, names = len(data.validation), {o.name for o in prepared.objectives}
    margin = 1.96 * sqrt(0.25 / max(1, n))
    if margin > MARGIN and names & {"accuracy", "exact_match", "f1"}:
        told = f"{n} validation examples tell a share only within {100 * margin:.0f} points"
        more = "a larger task.validation_fraction, or a larger validation split"
        yield Finding("warning", told, more)


def _of_classes(data: Data, objectives: Sequence[str]) -> Iterator[Finding]:
    names = data.label_names
    if not names or not all(isinstance(label, int) for label in data.train["label"][:1]):
        return
    counts = Counter(data.train["label"][:])
    rare = [names[label] for label, n in counts.items() if n < 2]
    if rare:
        told = f"classes with a single training example: {', '.join(rare[:5])}"
        yield Finding("warning", told, "join them with others, or leave them out")
    seen = {*data.validation["label"][:]}
    unseen = [names[label] for label in counts if label not in seen]
    if unseen:
        told = f"classes that validation has none of: {', '.join(unseen[:5])}"
        yield Finding("warning", told, "a larger task.validation_fraction")
    share = max(counts.values()) / len(data.train)
    if share > LARGEST and "accuracy" in objectives:
        told = f"{share:.0%} of the examples are of one class, so that accuracy says little"
        yield Finding("warning", told, "an objective f1 or balanced_accuracy")


def _of_memory(prepared: Prepared) -> Iterator[Finding]:
    room = worker_memory(prepared.spec, prepared.setting)
    if room is None:
        return
    params, rng = prepared.known["trainable_params"].value, np.random.default_rng(0)
    dearest = least(prepared.space, rng, lambda config: -params(config))
    most = prepared.known["peak_memory"].value(dearest)
    limit = prepared.limits.get("peak_memory", float("inf"))
    if min(most, limit) > room:
        told = f"a training may take {_bytes(most)} by prediction, a worker has {_bytes(room)}"
        yield Finding("warning", told, f"limits: {{peak_memory: {_bytes(0.9 * room, '')}}}")


def _of_time(prepared: Prepared, took: Pace) -> Iterator[Finding]:
    seconds = took.study(*terms_of(prepared))
    if seconds > LONG:
        told = f"the study takes about {duration(seconds)} here"
        less = "a smaller task.max_train_samples or search.n_trials, or engine.address of a cluster"
        yield Finding("warning", told, less)


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "is missing"


def _existing(folder: Any) -> Any:
    """The folder, or the nearest one above it that there is."""
    return folder if folder.exists() else _existing(folder.parent)


def _bytes(amount: float, space: str = " ") -> str:
    return f"{space.join(prefixed(amount, 3))}B"
