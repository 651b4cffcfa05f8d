"""The model card of an exported folder: README.md as model hubs read it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from autopeft.core.config import PeftConfig, thaw

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")

_MARKUP = re.compile(r"([\\`*<>\[\]#|])")


@dataclass(frozen=True)
class CardFacts:
    """What a card says beside the configuration.

    Attributes:
        base_model: the reference of the backbone, as its user gave it.
        task: type of the task, such as `text-classification`.
        data: the reference of the data.
        study: name of the study.
        trial: number of the trial, or None.
        max_length: tokens after which texts were cut, or None.
        epochs: how far it was trained, or None.
        metrics: by what was measured and where, as they are to be read.
        counts: by name, such as `trainable_params`; bytes for memory.
        reason: why this trial, as a sentence.
        comparisons: with baselines, each as a sentence.
        runs_in: what loads the folder, by name.
    """

    base_model: str
    task: str = ""
    data: str = ""
    study: str = ""
    trial: int | None = None
    max_length: int | None = None
    epochs: float | None = None
    metrics: Mapping[str, str] = field(default_factory=dict)
    counts: Mapping[str, float] = field(default_factory=dict)
    reason: str = ""
    comparisons: Sequence[str] = ()
    runs_in: Sequence[str] = ()


def card(library: str, config: PeftConfig, facts: CardFacts, usage: str) -> str:
    """The text of README.md, with front matter.

    Args:
        library: the one that loads the folder.
        config: what was trained.
        facts: about its training.
        usage: Python code that loads the folder.
    """
    front = yaml.safe_dump(_front_matter(library, config, facts), sort_keys=False)
    sections = [
        f"---\n{front}---\n\n# {_title(facts)}",
        _origin(facts),
        f"Picked because {_plain(facts.reason)}." if facts.reason else "",
        "## Configuration\n\n" + _placements(config),
        _settings(config, facts),
        _table("Metrics", facts.metrics),
        _comparisons(facts.comparisons),
        _table("Size", {name: _number(value) for name, value in facts.counts.items()}),
        f"## How to load\n\n```python\n{usage}\n```",
        f"Loads in: {', '.join(facts.runs_in)}." if facts.runs_in else "",
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _front_matter(library: str, config: PeftConfig, facts: CardFacts) -> dict[str, Any]:
    front: dict[str, Any] = {"library_name": library}
    if _HUB_ID.fullmatch(facts.base_model) and not Path(facts.base_model).exists():
        front["base_model"] = facts.base_model
    if facts.task:
        front["pipeline_tag"] = _PIPELINES.get(facts.task, facts.task)
    methods = sorted({placement.method for placement in config.placements})
    return front | {"tags": ["autopeft", "parameter-efficient-fine-tuning", *methods]}


def _title(facts: CardFacts) -> str:
    trial = "" if facts.trial is None else f", trial {facts.trial}"
    return f"{_plain(facts.study or _name(facts.base_model))}{trial}"


def _plain(text: str) -> str:
    """Text of a user in one line, none of it read as Markdown or HTML."""
    return _MARKUP.sub(r"\\\1", _in_a_line(text))


def _code(text: str) -> str:
    """Text of a user in one line, set as code."""
    return "`" + _in_a_line(text).replace("`", "'") + "`"


def _in_a_line(text: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _origin(facts: CardFacts) -> str:
    text = f"Fine-tuned from {_code(_name(facts.base_model))}"
    text += f" for {facts.task}" if facts.task else ""
    text += f" on {_code(_name(facts.data))}" if facts.data else ""
    return f"{text} with a configuration found by autopeft."


def _name(reference: str) -> str:
    """The reference, of a folder or file only its last part."""
    return (
        reference.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1]
        if _local(reference)
        else reference
    )


def _local(reference: str) -> bool:
    return reference.startswith(("/", ".", "~")) or "\\" in reference


def _placements(config: PeftConfig) -> str:
    if not config.placements:
        return "Only the task head is trained."
    rows = [
        f"| {p.method} | {_layers(p.layers)} | {_options(thaw(p.options))} |"
        for p in config.placements
    ]
    return "\n".join(["| method | layers | options |", "|---|---|---|", *rows])


def _settings(config: PeftConfig, facts: CardFacts) -> str:
    length = {"num_train_epochs": facts.epochs, "max_length": facts.max_length}
    settings = thaw(config.train) | thaw(config.backbone) | length
    return f"Trained with {_options(settings)}." if settings else ""


def _layers(layers: tuple[int, ...]) -> str:
    return ", ".join(map(str, layers))


def _options(options: Mapping[str, Any]) -> str:
    texts = (f"{key} {_option(value)}" for key, value in options.items() if value is not None)
    return ", ".join(texts) or "–"


def _option(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _comparisons(sentences: Sequence[str]) -> str:
    if not sentences:
        return ""
    lines = "\n".join(f"- {_plain(sentence)}" for sentence in sentences)
    return f"## Against the baselines of its study\n\nOn the test split:\n\n{lines}"


def _table(heading: str, values: Mapping[str, str]) -> str:
    if not values:
        return ""
    rows = [f"| {name} | {value} |" for name, value in values.items()]
    return "\n".join([f"## {heading}\n", "| name | value |", "|---|---|", *rows])


def _number(value: float) -> str:
    return f"{int(value):,}" if float(value).is_integer() else f"{value:.4f}"


_PIPELINES = {"causal-lm": "text-generation", "seq2seq-lm": "text2text-generation"}
