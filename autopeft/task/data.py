"""Labelled texts in three splits, whatever they come from and however they are named there."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any

from datasets import Dataset

from autopeft.core.errors import StudyError, shown
from autopeft.task.digest import digest_of
from autopeft.task.labels import LABEL_KEY, Classes, Labels, missing
from autopeft.task.split import complete, limited
from autopeft.task.tables import SPLITS, column_of

PAIR_COLUMNS = (
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("question", "sentence"),
    ("text", "text_pair"),
)
TEXT_COLUMNS = ("text", "sentence", "content", "review", "document")
IMAGE = "image"
"""The column of an image as bytes, whose digest is in `text`."""

LABEL_COLUMNS = ("label", "labels", "target", "class", "category", "sentiment")


@dataclass(frozen=True)
class Columns:
    """Which columns hold the texts and the labels; None means the obvious one.

    Rows with the same `group` are never on two sides; None is no such column. Those `beside` stay
    as they are.
    """

    text: str | None = None
    text_pair: str | None = None
    label: str | None = None
    group: str | None = None
    beside: tuple[str, ...] = ()


@dataclass(frozen=True)
class Data:
    """Three splits with the columns `text`, `text_pair` (if the task has pairs) and `label`.

    Of images `text` has the digests, and `image` the bytes.

    Attributes:
        label_names: the name of each class, none where labels are numbers.
    """

    train: Dataset
    validation: Dataset
    test: Dataset
    label_names: tuple[str, ...]

    @cached_property
    def digest(self) -> str:
        """The sha256 of what is trained on and judged by: texts, labels and names, in order."""
        columns = {
            split: {
                name: digest_of(map(str, table[name][:]))
                for name in table.column_names
                if name != IMAGE
            }
            for split, table in ((split, getattr(self, split)) for split in SPLITS)
        }
        return digest_of([json.dumps([self.label_names, columns], sort_keys=True)])


def load_data(
    tables: Mapping[str, Dataset],
    columns: Columns | None = None,
    labels: Labels | None = None,
    *,
    max_train_samples: int | None = None,
    max_eval_samples: int | None = None,
    validation_fraction: float = 0.1,
) -> Data:
    """The three splits of some tables, the same in every process.

    A missing split, or a test split whose labels are hidden, is cut from the training split by
    class, so that a text that stands twice never comes to lie on both sides.

    Args:
        tables: by split, see `filled_tables`.
        columns: where the texts and labels stand.
        labels: what the labels are; None means a class a row.
        max_train_samples: training examples kept, by class.
        max_eval_samples: examples kept in validation and in test each, by class.
        validation_fraction: share of the training split that each missing split gets.

    Raises:
        StudyError: no such column, no text, missing or unfit labels, a group on two
            sides.
    """
    labels = labels or Classes()
    named = _named(tables["train"], columns or Columns())
    examples = {
        split: _examples(table, named, split, labels)
        for split, table in tables.items()
        if split == "train" or not _hidden(table, named["label"])
    }
    by_split = {split: rows["label"] for split, rows in examples.items()}
    names = labels.names(tables["train"].features[named["label"]], by_split)
    targeted = {
        split: Dataset.from_dict({**rows, "label": labels.targets(names, rows["label"])})
        for split, rows in examples.items()
    }
    splits = complete(targeted, validation_fraction, labels.stratum)
    used = {s: labels.used(names, table["label"][:]) for s, table in splits.items()}
    check_used(used, LABEL_KEY)
    _check_groups(splits)
    limits = {"train": max_train_samples, "validation": max_eval_samples, "test": max_eval_samples}
    kept = {s: limited(splits[s], limits[s], labels.stratum) for s in SPLITS}
    return Data(**kept, label_names=names)


def _named(table: Dataset, columns: Columns) -> dict[str, str]:
    """The column of the text, of its pair (if any) and of the label."""
    text, pair = columns.text, columns.text_pair
    if text is None and pair is None:
        known = set(table.column_names)
        text, pair = next((p for p in PAIR_COLUMNS if known.issuperset(p)), (None, None))
    named = {"text": column_of(table, "text", text, TEXT_COLUMNS)}
    if pair is not None:
        named["text_pair"] = column_of(table, "text_pair", pair, ())
    for target, name in named.items():
        kind = getattr(table.features[name], "dtype", "a list")
        if kind not in {"string", "large_string"}:
            raise StudyError(f"the column {name!r} holds {kind}, not text", f"task.{target}_column")
    if columns.group is not None:
        named["group"] = column_of(table, "group", columns.group, ())
    named |= {name: name for name in columns.beside}
    return {**named, "label": column_of(table, "label", columns.label, LABEL_COLUMNS)}


def _hidden(table: Dataset, label: str) -> bool:
    """Whether a split comes without labels (none or -1), as the test splits of benchmarks do."""
    return label not in table.column_names or all(
        missing(value) or value in (-1, "-1") for value in table[label][:]
    )


def _examples(
    table: Dataset, named: Mapping[str, str], split: str, labels: Labels
) -> dict[str, list[Any]]:
    """The columns of one split under their common names, without gaps."""
    examples: dict[str, list[Any]] = {}
    for target, name in named.items():
        column_of(table, target, name, ())
        values = table[name][:]
        if target == "label":
            values = labels.read(table.features[name], values)
        absent = [row for row, value in enumerate(values, 1) if missing(value)]
        if absent:
            raise StudyError(
                f"{len(absent)} of {len(table)} rows of the split {split!r} have no {name!r}, "
                f"first row {absent[0]}",
                f"task.{target}_column",
            )
        examples[target] = values if target != "group" else list(map(str, values))
    return examples


def check_used(names: Mapping[str, Sequence[str]], key: str) -> None:
    """Refuses labels that nothing is trained on.

    Args:
        names: of the labels that each split uses.
        key: of the study file that names their column.

    Raises:
        StudyError: some split uses labels that training lacks.
    """
    for split, used in names.items():
        strange = [name for name in used if name not in names["train"]]
        if strange:
            listed = ", ".join(map(shown, strange[:5]))
            more = f" and {len(strange) - 5} more" if len(strange) > 5 else ""
            reason = f"the split {split!r} has labels that training lacks: {listed}{more}"
            raise StudyError(reason, key)


def _check_groups(splits: Mapping[str, Dataset]) -> None:
    """Refuses splits that the data came with where a group lies on two sides."""
    tables = {s: splits[s] for s in SPLITS if "group" in splits[s].column_names}
    groups = {split: set(table["group"][:]) for split, table in tables.items()}
    for one, other in combinations(groups, 2):
        if both := sorted(groups[one] & groups[other]):
            some = ", ".join(map(shown, both[:3]))
            reason = f"{len(both)} groups are in the splits {one!r} and {other!r}: {some}"
            raise StudyError(reason, "task.group_column")
