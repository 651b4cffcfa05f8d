"""From a trial of a study to files."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from autopeft.api.deploy import TARGETS, runs_in
from autopeft.api.identity import label_names, meaning, model_identity
from autopeft.api.outcome import Outcome, open_study
from autopeft.core.catalog import Reference
from autopeft.core.errors import ExportError
from autopeft.core.settings import BackboneSettings
from autopeft.exporter.card import CardFacts
from autopeft.exporter.exporter import Trained
from autopeft.exporter.writer import export as write
from autopeft.model.backbone import Backbone, load_backbone
from autopeft.model.checkpoint import trust
from autopeft.model.positions import positions
from autopeft.report.seeds import folded
from autopeft.report.value import shown, tested, valued
from autopeft.study.record import check_same, stamp_of
from autopeft.study.repeats import fresh
from autopeft.study.trial import TrialRecord
from autopeft.task.registry import task_of
from autopeft.task.task import Task
from autopeft.train.member_training import STAMP, STATE_FILE


def export(
    study: Reference | Outcome,
    output: str | Path,
    *,
    trial: int | None = None,
    pick: str = "knee",
    within: str | float | None = None,
    format: str | None = None,
    uniform: bool | None = None,
) -> Path:
    """Writes a trial of a study for the tools that will use it, weights in float32.

    Where it was trained again with fresh seeds, the tensors are those of the best of these
    trainings on the validation split.

    Args:
        study: the study, or what its record says.
        output: a folder that does not exist or is empty.
        trial: number of a complete trial; else `pick` chooses one of the front.
        pick: `knee`, `best` or `cheapest`.
        within: how far from the best `cheapest` may be, such as `1%`; by default one point.
        format: `native`, `peft`, `merged`, `onnx` or `adapters`; by default what the `deploy` of
            the study loads.
        uniform: of `peft`: one rank of LoRA for all modules, true always, false never; by default
            where they differ.

    Raises:
        ExportError: no such trial, or one that the format cannot express.
    """
    outcome = study if isinstance(study, Outcome) else open_study(study)
    reason = ""
    if trial is None:
        choice = outcome.choose(pick, within)
        trial, reason = choice.trial.number, choice.reason
    chosen = outcome.trial(trial)
    trained = _trained(outcome, chosen)
    task = task_of(outcome.spec.task)
    format = format or TARGETS[outcome.spec.deploy].format
    state, backbone = _state(outcome, trained), _backbone(outcome, chosen, task)
    facts = CardFacts(
        base_model=outcome.spec.model,
        task=task.type,
        data=task.data,
        study=outcome.spec.name,
        trial=chosen.number,
        max_length=min(task.max_length, positions(backbone.model)),
        epochs=trained.epochs,
        metrics=_metrics(outcome, chosen, trained),
        counts=chosen.known,
        reason=reason,
        comparisons=tuple(comparison.sentence for comparison in outcome.comparisons),
        runs_in=runs_in(format, chosen.config, task.head),
    )
    return write(format, Trained(backbone, chosen.config, state), output, facts, uniform=uniform)


def _trained(outcome: Outcome, trial: TrialRecord) -> TrialRecord:
    """The best fresh training of a trial by the first learned objective; itself without any."""
    quality = next((o for o in outcome.objectives if not o.known), None)
    again = fresh(outcome.trials).get(trial.number)
    if quality is None or not again:
        return trial
    return min(again, key=lambda repeat: quality.loss(repeat.values[quality.name]))


def _metrics(outcome: Outcome, trial: TrialRecord, trained: TrialRecord) -> dict[str, str]:
    """Of the exported training, and of fresh trainings of its configuration where there are any."""
    means = {record.number: record for record in folded(outcome.trials)}.get(trial.number, trial)
    seeds = f"mean of {means.n_seeds} fresh trainings"
    seeds = "as it comes" if means.trains_nothing else seeds
    rows = {}
    for objective in (o for o in outcome.objectives if not o.known):
        name = objective.name
        rows[f"{name}, validation, this training"] = shown(objective, trained.values[name])
        if means.n_seeds:
            rows[f"{name}, validation, {seeds}"] = valued(objective, means)
            rows[f"{name}, test, {seeds}"] = tested(objective, means)
    return rows


def _state(outcome: Outcome, trial: TrialRecord) -> dict[str, torch.Tensor]:
    """The tensors of a trial, if they are its own."""
    path = Path(trial.folder or "") / STATE_FILE
    if not path.is_file():
        raise ExportError(f"the tensors of trial {trial.number} are not at {path}", "trial")
    try:
        with safe_open(path, framework="pt") as file:
            stamp = (file.metadata() or {}).get(STAMP, "")
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        reason = f"the tensors of trial {trial.number} at {path} cannot be read: {error}"
        raise ExportError(reason, "trial") from error
    if stamp and stamp != stamp_of(outcome.record, trial.config):
        reason = f"the tensors at {path} are not those of trial {trial.number} of this study"
        raise ExportError(reason, "trial")
    return tensors


def _backbone(outcome: Outcome, trial: TrialRecord, task: Task) -> Backbone:
    """The backbone of a trial, in float32 unless its configuration says otherwise."""
    labels = label_names(outcome.identity)
    if labels is None:
        reason = "the record tells no classes of the data; `autopeft run` adds them"
        raise ExportError(reason, outcome.spec.name)
    model = {"model": model_identity(outcome.spec.model)}
    check_same(outcome.identity, model, meaning, outcome.spec.name)
    if outcome.spec.trust_remote_code:
        trust(outcome.spec.model)
    settings = BackboneSettings(**{"dtype": "float32", **dict(trial.config.backbone)})
    backbone = load_backbone(
        outcome.spec.model,
        task.head,
        settings,
        n_labels=max(1, len(labels)),
        device="cpu",
    )
    if labels:
        backbone.model.config.id2label = dict(enumerate(labels))
        backbone.model.config.label2id = {label: i for i, label in enumerate(labels)}
    return backbone
