"""Reads the rows of a table one by one, and tells of those that cannot be learned from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from datasets import Dataset

from autopeft.core.errors import StudyError, shown

Row = Mapping[str, Any]
Read = TypeVar("Read")

KEY = "task.data"
"""The key of a study that says where its data are."""


def read_rows(table: Dataset, split: str, read: Callable[[Row], Read]) -> list[Read]:
    """What `read` makes of every row.

    Args:
        table: of examples.
        split: its name.
        read: raises ValueError where a row holds nothing to learn.

    Raises:
        StudyError: some rows hold nothing; says how many, and what is wrong with the first.
    """
    made: list[Read] = []
    bad: list[tuple[int, str]] = []
    for number, row in enumerate(table, 1):
        try:
            made.append(read(row))
        except ValueError as error:
            bad.append((number, str(error)))
    if bad:
        number, reason = bad[0]
        what = f"{len(bad)} of {len(table)} rows of the split {split!r} cannot be learned from"
        raise StudyError(f"{what}, first row {number}: {reason}", KEY)
    return made


def text_at(row: Row, name: str) -> str:
    """The text of a column, or at a dotted path in the mapping that it holds.

    Lists of texts are joined, and numbers are written out.

    Raises:
        ValueError: there is none.
    """
    value: Any = row
    for key in [name] if name in row else name.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        value = " ".join(value)
    if isinstance(value, int | float) and not isinstance(value, bool) and value == value:
        return str(value)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{name} must be a text, got {shown(value)}")
    return value
