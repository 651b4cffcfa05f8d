"""From a trial of a study to files."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file

from autopeft.api.outcome import Outcome, open_study
from autopeft.core.catalog import Reference
from autopeft.core.errors import ExportError
from autopeft.core.settings import BackboneSettings
from autopeft.exporter.card import CardFacts
from autopeft.exporter.writer import export as write
from autopeft.model.backbone import Backbone, load_backbone
from autopeft.model.positions import positions
from autopeft.study.trial import TrialRecord
from autopeft.task.task import Task
from autopeft.train.member_training import STATE_FILE


def export(
    study: Reference | Outcome,
    output: str | Path,
    *,
    trial: int | None = None,
    pick: str = "knee",
    within: str | float | None = None,
    format: str = "native",
) -> Path:
    """Writes a trial of a study for the tools that will use it, weights in float32.

    Args:
        study: the study, or what its record says.
        output: a folder that does not exist or is empty.
        trial: number of a complete trial; else `pick` chooses one of the front.
        pick: `knee`, `best` or `cheapest`.
        within: how far from the best `cheapest` may be, such as `1%`.
        format: `native`, `peft` or `merged`.

    Raises:
        ExportError: no such trial, or one that the format cannot express.
    """
    outcome = study if isinstance(study, Outcome) else open_study(study)
    chosen = outcome.trial(trial) if trial is not None else outcome.pick(pick, within)
    task = Task.from_mapping(outcome.spec.task)
    state, backbone = _state(chosen), _backbone(outcome, chosen)
    facts = CardFacts(
        base_model=outcome.spec.model,
        task=task.type,
        data=task.data,
        study=outcome.spec.name,
        trial=chosen.number,
        max_length=min(task.max_length, positions(backbone.model)),
        metrics={o.name: chosen.values[o.name] for o in outcome.objectives if not o.known},
        counts=chosen.known,
    )
    return write(
        format, backbone=backbone, config=chosen.config, state=state, output=output, facts=facts
    )


def _state(trial: TrialRecord) -> dict[str, torch.Tensor]:
    path = Path(trial.folder or "") / STATE_FILE
    if not path.is_file():
        raise ExportError(f"the tensors of trial {trial.number} are not at {path}", "trial")
    return load_file(path)


def _backbone(outcome: Outcome, trial: TrialRecord) -> Backbone:
    """The backbone of a trial, in float32 unless its configuration says otherwise."""
    task = Task.from_mapping(outcome.spec.task)
    settings = BackboneSettings(**{"dtype": "float32", **dict(trial.config.backbone)})
    labels = task.load().label_names
    backbone = load_backbone(
        outcome.spec.model, task.type, settings, n_labels=len(labels), device="cpu"
    )
    backbone.model.config.id2label = dict(enumerate(labels))
    backbone.model.config.label2id = {label: i for i, label in enumerate(labels)}
    return backbone
