"""Columns that have no usual names, told by what they hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from datasets import Dataset

from autopeft.task.data import LABEL_COLUMNS, PAIR_COLUMNS, TEXT_COLUMNS

LOOKED_AT = 2000
"""Rows of a table."""

ROWS_OF_A_CLASS, MOST_CLASSES = 5, 100
"""Least and most of a column that is taken for labels."""


def told_by_content(table: Dataset) -> dict[str, str]:
    """Columns of texts and of labels that have no usual names: by what they hold."""
    names, told = {*table.column_names}, {}
    plain = {name: table[name][:LOOKED_AT] for name in names if _is_plain(table, name)}
    if names.isdisjoint(LABEL_COLUMNS):
        most = min(MOST_CLASSES, max(2, len(table) // ROWS_OF_A_CLASS))
        few = [name for name, values in plain.items() if 2 <= len({*values} - {None}) <= most]
        scores = [name for name, values in plain.items() if name not in few and _scores(values)]
        if len(labels := few + scores) == 1:
            (told["label_column"],) = labels
    if names.isdisjoint(TEXT_COLUMNS) and not any(names >= {*pair} for pair in PAIR_COLUMNS):
        texts = {
            name: sum(len(value or "") for value in values)
            for name, values in plain.items()
            if isinstance(_first(values), str) and name not in told.values()
        }
        if texts:
            told["text_column"] = max(texts, key=lambda name: texts[name])
    return told


def _is_plain(table: Dataset, name: str) -> bool:
    """Whether a column holds texts, numbers or truth values."""
    return isinstance(_first(table[name][:LOOKED_AT]), str | int | float | bool)


def _first(values: Sequence[Any]) -> Any:
    """The first that is there."""
    return next((value for value in values if value is not None), None)


def _scores(values: Sequence[Any]) -> bool:
    """Whether numbers are no mere names of rows."""
    kind = type(_first(values))
    return kind is float or (kind is int and len({*values}) < len(values))
