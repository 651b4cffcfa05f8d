"""Reads the rows of a table one by one, and tells of those that cannot be learned from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from datasets import Dataset

from autopeft.core.errors import StudyError
from autopeft.task.download import KEY

Row = Mapping[str, Any]
Read = TypeVar("Read")


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
