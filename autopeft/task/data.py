"""Labelled texts in three splits, whatever they come from and however they are named there."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from datasets import ClassLabel, Dataset

from autopeft.core.errors import StudyError, shown, unknown
from autopeft.task.digest import digest_of
from autopeft.task.download import KEY
from autopeft.task.split import complete, limited
from autopeft.task.tables import SPLITS, read_tables

PAIR_COLUMNS = (
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("question", "sentence"),
    ("text", "text_pair"),
)
TEXT_COLUMNS = ("text", "sentence", "content", "review", "document")
LABEL_COLUMNS = ("label", "labels", "target", "class", "category", "sentiment")
_LABEL_KEY = "task.label_column"
_NUMBER = re.compile(r"\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*")


@dataclass(frozen=True)
class Columns:
    """Which columns hold the texts and the labels; None means the obvious one."""

    text: str | None = None
    text_pair: str | None = None
    label: str | None = None


@dataclass(frozen=True)
class Data:
    """Three splits with the columns `text`, `text_pair` (if the task has pairs) and `label`.

    Attributes:
        label_names: the name of each class; a label is an index into it.
    """

    train: Dataset
    validation: Dataset
    test: Dataset
    label_names: tuple[str, ...]

    @cached_property
    def digest(self) -> str:
        """The sha256 of what is trained on and judged by: texts, labels and names, in order."""
        columns = {
            split: {name: digest_of(map(str, table[name][:])) for name in table.column_names}
            for split, table in ((split, getattr(self, split)) for split in SPLITS)
        }
        return digest_of([json.dumps([self.label_names, columns], sort_keys=True)])


def load_data(
    reference: str,
    columns: Columns | None = None,
    *,
    max_train_samples: int | None = None,
    max_eval_samples: int | None = None,
    validation_fraction: float = 0.1,
) -> Data:
    """The three splits of `reference`, the same in every process.

    A missing split, or a test split whose labels are hidden, is cut from the training split by
    class, so that a text that stands twice never comes to lie on both sides.

    Args:
        reference: id of the hub, file, folder or package, see `read_tables`.
        columns: where the texts and labels stand.
        max_train_samples: training examples kept, by class.
        max_eval_samples: examples kept in validation and in test each, by class.
        validation_fraction: share of the training split that each missing split gets.

    Raises:
        StudyError: no such data, no such column, no text, missing labels, fewer than two classes.
    """
    tables = {split: table for split, table in read_tables(reference).items() if len(table)}
    if "train" not in tables:
        raise StudyError(f"{reference!r} has no training examples", KEY)
    named = _named(tables["train"], columns or Columns())
    examples = {
        split: _examples(table, named, split)
        for split, table in tables.items()
        if split == "train" or not _hidden(table, named["label"])
    }
    names = _class_names(tables["train"].features[named["label"]], examples)
    splits = complete(_with_ids(examples, names), validation_fraction)
    _check_labels(splits, names)
    limits = {"train": max_train_samples, "validation": max_eval_samples, "test": max_eval_samples}
    return Data(**{s: limited(splits[s], limits[s]) for s in SPLITS}, label_names=tuple(names))


def _named(table: Dataset, columns: Columns) -> dict[str, str]:
    """The column of the text, of its pair (if any) and of the label."""
    text, pair = columns.text, columns.text_pair
    if text is None and pair is None:
        known = set(table.column_names)
        text, pair = next((p for p in PAIR_COLUMNS if known.issuperset(p)), (None, None))
    named = {"text": _column(table, "text", text, TEXT_COLUMNS)}
    if pair is not None:
        named["text_pair"] = _column(table, "text_pair", pair, ())
    for target, name in named.items():
        kind = getattr(table.features[name], "dtype", "a list")
        if kind not in {"string", "large_string"}:
            raise StudyError(f"the column {name!r} holds {kind}, not text", f"task.{target}_column")
    return {**named, "label": _column(table, "label", columns.label, LABEL_COLUMNS)}


def _column(table: Dataset, target: str, name: str | None, obvious: Sequence[str]) -> str:
    """The column `name`, or the first obvious one that the table has."""
    known, key = table.column_names, f"task.{target}_column"
    if name is None:
        name = next((candidate for candidate in obvious if candidate in known), None)
        if name is None:
            raise StudyError(f"no column is called so: name one of {', '.join(known)}", key)
    if name not in known:
        raise StudyError(unknown("column", name, known), key)
    return name


def _hidden(table: Dataset, label: str) -> bool:
    """Whether a split comes without labels (none or -1), as the test splits of benchmarks do."""
    return label not in table.column_names or all(
        _missing(value) or value in (-1, "-1") for value in table[label][:]
    )


def _missing(value: Any) -> bool:
    return value is None or value != value


def _examples(table: Dataset, named: Mapping[str, str], split: str) -> dict[str, list[str]]:
    """The columns of one split under their common names, without gaps, labels by their names."""
    examples: dict[str, list[str]] = {}
    for target, name in named.items():
        _column(table, target, name, ())
        values = table[name][:]
        if target == "label":
            values = _label_names(table.features[name], values)
        absent = [row for row, value in enumerate(values, 1) if _missing(value)]
        if absent:
            raise StudyError(
                f"{len(absent)} of {len(table)} rows of the split {split!r} have no {name!r}, "
                f"first row {absent[0]}",
                f"task.{target}_column",
            )
        examples[target] = values
    return examples


def _label_names(feature: Any, values: Sequence[Any]) -> list[str | None]:
    """How each label is called; None where there is none."""
    if not isinstance(feature, ClassLabel):
        return [None if _missing(v) or v == "" else _label_name(v) for v in values]
    names = dict(enumerate(feature.names))
    return [names.get(value) for value in values]


def _label_name(label: Any) -> str:
    """The spelling of a text, and that of JSON for anything else."""
    if isinstance(label, str):
        return label
    if isinstance(label, bool):
        return str(label).lower()
    if isinstance(label, int) or (isinstance(label, float) and label.is_integer()):
        return str(int(label))
    raise StudyError(f"the labels must be names or whole numbers, got {shown(label)}", _LABEL_KEY)


def _class_names(feature: Any, examples: Mapping[str, Mapping[str, list[str]]]) -> list[str]:
    """The names of the classes in the order of their ids; numbers are sorted as such.

    Raises:
        StudyError: fewer than two, or numbers that are no classes.
    """
    trained = set(examples["train"]["label"])
    if len(trained) < 2:
        raise StudyError(f"the only label is {trained.pop()!r}; two classes are needed", _LABEL_KEY)
    if isinstance(feature, ClassLabel):
        return list(feature.names)
    names = {name for columns in examples.values() for name in columns["label"]}
    if not all(_NUMBER.fullmatch(name) for name in names):
        return sorted(names)
    fraction = next((name for name in names if not float(name).is_integer()), None)
    if fraction is not None:
        reason = f"the labels must be names or whole numbers, got {shown(fraction)}"
        raise StudyError(reason, _LABEL_KEY)
    return sorted(names, key=lambda name: (float(name), name))


def _with_ids(
    examples: Mapping[str, Mapping[str, list[str]]], names: Sequence[str]
) -> dict[str, Dataset]:
    """Tables whose labels are indices into `names`."""
    ids = {name: index for index, name in enumerate(names)}
    return {
        split: Dataset.from_dict({**columns, "label": [ids[name] for name in columns["label"]]})
        for split, columns in examples.items()
    }


def _check_labels(splits: Mapping[str, Dataset], names: Sequence[str]) -> None:
    """Refuses labels that nothing is trained on."""
    labels = {split: set(table["label"][:]) for split, table in splits.items()}
    for split in SPLITS[1:]:
        strange = sorted(labels[split] - labels["train"])
        if strange:
            listed = ", ".join(shown(names[label]) for label in strange[:5])
            more = f" and {len(strange) - 5} more" if len(strange) > 5 else ""
            reason = f"the split {split!r} has labels that training lacks: {listed}{more}"
            raise StudyError(reason, _LABEL_KEY)
