"""A first study file for a model and some data."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from datasets import Dataset

from autopeft.api.columns import told_by_content
from autopeft.api.doctor import Finding, findings_of, is_timed
from autopeft.api.pace import Pace, follow, pace
from autopeft.api.run import Prepared, prepare
from autopeft.api.workers import workers_here
from autopeft.core import host
from autopeft.core.errors import StudyError
from autopeft.core.quantity import duration, prefixed
from autopeft.core.settings import BackboneSettings
from autopeft.model.backbone import Backbone, load_reader, meta_backbone, task_type_of
from autopeft.model.positions import positions
from autopeft.space.space import SearchSpace
from autopeft.study.spec import Search
from autopeft.task.conversations import Sample
from autopeft.task.data import LABEL_COLUMNS, Data
from autopeft.task.registry import task_of
from autopeft.task.tables import filled_tables
from autopeft.task.task import Task

SPACE = "layer-mix"
IMAGES = "image-classification"
CHOICES = (4, 2, 3, 5)
"""How many there may be of a question."""

LOOKED_AT = 2000
"""Examples whose tokens are counted."""

LONGEST = {"cpu": 256, "cuda": 1024}
"""Tokens after which texts are cut at most, unless one says otherwise."""

FEW = 5000
"""Training examples up to which trials see them three times, else once."""

MOST_EVALUATED = {"causal-lm": 200, "seq2seq-lm": 200}
"""Examples of validation and of test; a thousand of tasks that write no text."""

TRIALS = 8, 24, 200
"""Least and most trials of a study, and between them how many where no hours are given."""

VALIDATION, LARGEST_FRACTION = 400, 0.25
"""Examples with which a share is told within five points, and how many of all they are at most."""

AGAIN = ({"n_finalists": 2, "n_seeds": 3}, {"n_finalists": 1, "n_seeds": 2})
"""What is trained with fresh seeds where there is time for it, and where there is less."""

LEAST_EXAMPLES = 200
SHORT_ANSWER = 4
"""Words of an answer up to which it is to be exactly right."""


@dataclass(frozen=True)
class Draft:
    """A study file and what it was made from.

    Attributes:
        text: of the file.
        understood: what was found out, by name.
        findings: what is odd.
    """

    text: str
    understood: Mapping[str, str]
    findings: tuple[Finding, ...]

    def to_dict(self) -> dict[str, Any]:
        """What was found out as plain values for JSON."""
        return {"understood": dict(self.understood), "findings": [*map(asdict, self.findings)]}


def draft(
    model: str,
    data: str,
    *,
    gpus: int | None = None,
    hours: float | None = None,
    changes: Mapping[str, Any] | None = None,
) -> Draft:
    """Looks at a model and at data, times a few steps, and writes a study that fits.

    Args:
        model: as a study file names it.
        data: likewise.
        gpus: on which trials run side by side; None is those of this machine.
        hours: that the study may take; None is 24 trials, and says how long they take.
        changes: values of the task by key, such as `task.label_column`.

    Raises:
        StudyError: no such model or data, or they do not go together; hours that are none.
    """
    if hours is not None and not 0 < hours < 1e5:
        raise StudyError(f"must be a positive number, got {hours}", "hours")
    if gpus is not None and gpus < 0:
        raise StudyError(f"must be a number of GPUs, got {gpus}", "gpus")
    n_gpus = torch.cuda.device_count() if gpus is None else gpus
    backbone = meta_backbone(model, BackboneSettings())
    task, loaded = _task_of(data, backbone, _given(changes or {}))
    task, lengths = _sized(task, model, backbone, "cuda" if n_gpus else "cpu")
    document = _document(model, task, loaded, n_gpus)
    document["space"] = _space(backbone)
    understood = _understood(backbone, task, loaded, lengths)
    prepared = prepare(document)
    used = prepared.task.load()
    examples = prepared.examples(used)
    findings = list(findings_of(prepared, used, examples))
    if is_timed(prepared):
        took, n_train = pace(prepared, used, examples), len(used.train)
        workers = n_gpus or workers_here(prepared.spec, prepared.setting)
        if hours is not None:
            document = _within(document, prepared, took, n_train, workers, 3600 * hours)
        times, seconds = _times(document, prepared, took, n_train, workers)
        understood |= times
        if hours is not None and seconds > 1.1 * 3600 * hours:
            told = f"the least study takes about {duration(seconds)}, more than the hours given"
            findings.append(Finding("warning", told, "more hours, or a smaller model"))
    elif hours is not None:
        told = "how long trials take cannot be told here, so that the hours are not kept"
        findings.append(Finding("warning", told, "run init on a machine with such a GPU"))
    return Draft(_text(document, understood), understood, tuple(findings))


def _given(changes: Mapping[str, Any]) -> dict[str, Any]:
    """What is said of the task.

    Raises:
        StudyError: something else is said.
    """
    for key in changes:
        if not key.startswith("task."):
            raise StudyError("init is told of the task alone, as by task.label_column", key)
    return {key.removeprefix("task."): value for key, value in changes.items()}


def _task_of(data: str, backbone: Backbone, given: Mapping[str, Any]) -> tuple[Task, Data]:
    """The task that the model and the columns of the data speak of, and its examples.

    Raises:
        StudyError: there is none; says what each would have needed.
    """
    kind = task_type_of(backbone.model.config)
    reasons: list[tuple[str, StudyError]] = []
    tables = {} if kind == IMAGES else filled_tables(data)
    for document in _candidates(kind, data, tables.get("train")):
        if document["type"] != given.get("type", document["type"]):
            continue
        try:
            task = task_of({**document, **given})
            loaded = task.load()
        except StudyError as error:
            reasons.append((document["type"], error))
            continue
        return _told_apart(task, loaded)
    likely = kind if kind in MOST_EVALUATED else "text-classification"
    first = next((error for name, error in reasons if name == likely), reasons[-1][1])
    how = "; --set task.label_column=NAME --set task.text_column=NAME names columns"
    hint = how if "no column" in str(first) else ""
    raise StudyError(f"as {likely}, which it is taken for: {first}{hint}", data)


def _told_apart(task: Task, data: Data) -> tuple[Task, Data]:
    """The task with as much validation as tells configurations apart, where training gives it."""
    if len(data.validation) >= VALIDATION:
        return task, data
    total = len(data.train) + len(data.validation) + len(data.test)
    fraction = round(min(LARGEST_FRACTION, VALIDATION / total), 2)
    larger = task.model_copy(update={"validation_fraction": fraction})
    try:
        loaded = larger.load()
    except StudyError:  # training is too small for that
        return task, data
    return (larger, loaded) if len(loaded.validation) > len(data.validation) else (task, data)


def _candidates(kind: str, data: str, table: Dataset | None) -> Iterator[dict[str, Any]]:
    """What the data may be, the most particular first."""
    if table is None:
        yield {"type": IMAGES, "data": data}
        return
    yield {"type": "question-answering", "data": data}
    for n_choices in CHOICES:
        yield {"type": "multiple-choice", "data": data, "n_choices": n_choices}
    yield {"type": "token-classification", "data": data}
    for problem in ("multi_label",) if _holds_sets(table) else ("single_label", "regression"):
        document = {"type": "text-classification", "data": data, "problem": problem}
        yield {**document, **({} if kind in MOST_EVALUATED else told_by_content(table))}
    if kind in MOST_EVALUATED:
        yield {"type": kind, "data": data}


def _holds_sets(table: Dataset) -> bool:
    """Whether labels are lists, or texts of which many hold the separator of sets."""
    column = next((name for name in LABEL_COLUMNS if name in table.column_names), None)
    values = table[column][:LOOKED_AT] if column else []
    n_joined = sum(isinstance(value, str) and "," in value for value in values)
    return any(isinstance(value, list) for value in values) or 3 * n_joined > len(values) > 0


def _sized(task: Task, model: str, backbone: Backbone, device: str) -> tuple[Task, np.ndarray]:
    """The task with a limit of tokens that 99 of 100 examples keep, and tokens of examples."""
    if task.head.sees:
        return task, np.zeros(0)
    most = min(positions(backbone.model), 8 * LONGEST[device])
    few = {"max_train_samples": LOOKED_AT, "max_eval_samples": LOOKED_AT, "max_length": most}
    looked_at = task.model_copy(update=few)
    examples = looked_at.encode(looked_at.load(), load_reader(model, task.head))
    train = examples.splits["train"]
    whole = (train.lengths if train.cut is None else train.cut.whole).numpy()
    enough = int(-(-np.quantile(whole, 0.99) // 8) * 8)
    length = max(16, min(enough, most, LONGEST[device]))
    return task.model_copy(update={"max_length": length}), whole


def _document(model: str, task: Task, data: Data, gpus: int) -> dict[str, Any]:
    """The study as a mapping, with the numbers that do not depend on time."""
    name = re.sub(r"[^A-Za-z0-9]+", "-", Path(task.data).stem).strip("-").lower() or "study"
    said = task.model_dump(mode="json", exclude_defaults=True)
    evaluated = MOST_EVALUATED.get(task.type, 1000)
    largest = max(len(data.validation), len(data.test))
    writes = task.type in MOST_EVALUATED
    baselines = ["head-only", "lora"] if writes else ["lora", "pfeiffer"]
    engine: dict[str, Any] = {"type": "ray" if gpus or host.cores() > 1 else "inline"}
    if gpus:
        engine |= {"concurrency": gpus, "resources": {"gpu": 1}}
    device = {"device": "cpu"} if not gpus and torch.cuda.is_available() else {}
    return {
        "name": name,
        "model": model,
        "task": {
            "type": task.type,
            **said,
            **({} if task.head.sees else {"max_length": task.max_length}),
            **({"max_eval_samples": evaluated} if largest > evaluated else {}),
        },
        "space": SPACE,
        "objectives": _objectives(task, data),
        "search": {"n_trials": TRIALS[1], "baselines": baselines, **AGAIN[0]},
        "fidelity": {"epochs": 3 if len(data.train) <= FEW else 1},
        "engine": engine,
        **device,
    }


def _space(backbone: Backbone) -> Any:
    """The usual space, with as many groups as there are layers where those are few."""
    layers = backbone.shape.layers
    least = min(len(backbone.shape.stack(stack)) for stack in {layer.stack for layer in layers})
    space = SearchSpace.load(SPACE).to_dict()
    if least >= space["layers"]["groups"]:
        return SPACE
    return {**space, "layers": {**space["layers"], "groups": least}}


def _objectives(task: Task, data: Data) -> Any:
    """What is wanted of the task, beside few parameters."""
    if task.type in MOST_EVALUATED:
        rows = data.validation.select(range(min(LOOKED_AT, len(data.validation))))
        answers = [_answer(row) for row in rows]
        is_short = all(answer and len(answer.split()) <= SHORT_ANSWER for answer in answers)
        return "exact-match-params" if is_short else "loss-params"
    if "accuracy" in task.goals and task.type != "token-classification":
        return "accuracy-params"
    name = "pearson" if "pearson" in task.goals else "f1"
    return [
        {"name": name, "goal": "maximize", "reference": 0, "within": 0.02},
        {"name": "trainable_params", "goal": "minimize", "known": True, "scale": "log"}
        | {"reference": 1.0e8},
    ]


def _answer(row: Mapping[str, Any]) -> str:
    """What a model is to say last; nothing where there is no prompt."""
    if "label" in row:
        return str(row["label"])
    sample = Sample.loads(row["text"])
    if sample.messages:
        return str(sample.messages[-1].get("content") or "")
    return sample.completion if sample.prompt else ""


def _within(
    document: Mapping[str, Any],
    prepared: Prepared,
    took: Pace,
    n_train: int,
    workers: int,
    seconds: float,
) -> dict[str, Any]:
    """The study with as many trials as there is time for, of fewer examples where it is short."""
    least, _, most = TRIALS
    fidelity, section = prepared.spec.fidelity, document["search"]
    for again in AGAIN:
        section = {**section, **again}
        after = follow(Search(**section), fidelity)
        one = took.trial(fidelity, len(prepared.rungs))
        n_trials = int(seconds * workers / one - after)
        if n_trials >= least:
            return {**document, "search": {**section, "n_trials": min(most, n_trials)}}
    each = seconds * workers / (least + after) - took.evaluation
    examples = max(LEAST_EXAMPLES, int(each / (fidelity.bounds[1] * took.epoch) * n_train))
    return {
        **document,
        "search": {**section, "n_trials": least},
        "task": {**document["task"], "max_train_samples": examples},
    }


def _times(
    document: Mapping[str, Any], prepared: Prepared, took: Pace, n_train: int, workers: int
) -> tuple[dict[str, str], float]:
    """What the study is expected to take, in words and in seconds."""
    share = min(1.0, document["task"].get("max_train_samples", n_train) / n_train)
    fewer = replace(took, epoch=took.epoch * share)
    search, fidelity = Search(**document["search"]), prepared.spec.fidelity
    terms = search, fidelity, len(prepared.rungs), workers
    return fewer.told(*terms), fewer.study(*terms)


def _understood(backbone: Backbone, task: Task, data: Data, lengths: np.ndarray) -> dict[str, str]:
    shape, kind = backbone.shape, type(backbone.model).__name__
    parameters = " ".join(prefixed(shape.parameters, 3))
    problem = getattr(task, "problem", "single_label")
    named = "" if problem == "single_label" else f", {problem}"
    facts = {
        "model": f"{kind}, {len(shape.layers)} layers, {parameters} parameters",
        "task": f"{task.type}{named}",
        "examples": f"{len(data.train):,} train, {len(data.validation):,} validation, "
        f"{len(data.test):,} test",
    }
    if data.label_names:
        names, more = data.label_names[:6], len(data.label_names) - 6
        rest = f" and {more} more" if more > 0 else ""
        facts["classes"] = f"{len(data.label_names)}: {', '.join(names)}{rest}"
    if len(lengths):
        middle, longest = int(np.median(lengths)), int(lengths.max())
        facts["tokens"] = f"{middle} in the middle, {longest} at most; cut at {task.max_length}"
    return facts


_COMMENTS = {
    "model": "a hub id, a folder, or package:NAME/FOLDER",
    "task": "columns with usual names are found; else name them: text_column, label_column",
    "space": "or another of `autopeft list spaces`, or a file of your own",
    "objectives": "or another of `autopeft list objectives`",
    "search": "trials of the search, then finalists and baselines again with fresh seeds",
    "fidelity": "epochs of a trial; the trainings with fresh seeds may go twice as far",
    "engine": "ray runs trials side by side, inline one after the other",
}


def _text(document: Mapping[str, Any], understood: Mapping[str, str]) -> str:
    """The study file, with what was understood of it."""
    lines = [f"# {name}: {_printable(fact)}" for name, fact in understood.items()]
    for key, value in document.items():
        if key in _COMMENTS:
            lines.append(f"# {_COMMENTS[key]}")
        flow = None if isinstance(value, list | dict) else False
        options: dict[str, Any] = {"sort_keys": False, "allow_unicode": True, "width": 88}
        text = yaml.safe_dump({key: value}, default_flow_style=flow, **options)
        lines.append(text.rstrip())
    return "\n".join(lines) + "\n"


def _printable(fact: str) -> str:
    """A fact on one line, whatever the data hold."""
    return "".join(each if each.isprintable() else " " for each in fact)
