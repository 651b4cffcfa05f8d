"""What the column of the labels holds: classes, sets of classes, numbers."""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from datasets import ClassLabel

from autopeft.core.errors import StudyError, shown

LABEL_KEY = "task.label_column"
_NUMBER = re.compile(r"\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*")

Splits = Mapping[str, Sequence[Any]]
"""The labels of each split."""


class Labels(ABC):
    """One kind of labels; those of a row are read, then turned into what is trained on."""

    @abstractmethod
    def read(self, feature: Any, values: Sequence[Any]) -> list[Any]:
        """The labels of a column, None where a row has none.

        Args:
            feature: what `datasets` says of the column.
            values: of the column.

        Raises:
            StudyError: they are of another kind.
        """

    @abstractmethod
    def names(self, feature: Any, labels: Splits) -> tuple[str, ...]:
        """The names of the classes, empty where there are none.

        Raises:
            StudyError: there is nothing to tell apart.
        """

    @abstractmethod
    def targets(self, names: Sequence[str], labels: Sequence[Any]) -> list[Any]:
        """What is trained on, for each label."""

    def stratum(self, target: Any) -> Hashable:
        """What a split has in the proportions of the whole."""
        return 0

    def used(self, names: Sequence[str], targets: Sequence[Any]) -> list[str]:
        """The names that occur, in their order."""
        return []


class Classes(Labels):
    """One class a row, by its name."""

    def read(self, feature: Any, values: Sequence[Any]) -> list[str | None]:
        if not isinstance(feature, ClassLabel):
            return [None if missing(v) or v == "" else name_of(v) for v in values]
        names = dict(enumerate(feature.names))
        return [names.get(value) for value in values]

    def names(self, feature: Any, labels: Splits) -> tuple[str, ...]:
        trained = set(labels["train"])
        if len(trained) < 2:
            reason = f"the only label is {trained.pop()!r}; two classes are needed"
            raise StudyError(reason, LABEL_KEY)
        if isinstance(feature, ClassLabel):
            return tuple(feature.names)
        return in_order({name for of_split in labels.values() for name in of_split})

    def targets(self, names: Sequence[str], labels: Sequence[str]) -> list[int]:
        places = {name: place for place, name in enumerate(names)}
        return [places[label] for label in labels]

    def stratum(self, target: Any) -> Hashable:
        return target

    def used(self, names: Sequence[str], targets: Sequence[int]) -> list[str]:
        return [names[target] for target in sorted(set(targets))]


class ClassSets(Labels):
    """Any number of classes a row: a list of names, or names in one text between separators."""

    def __init__(self, separator: str) -> None:
        self._separator = separator

    def read(self, feature: Any, values: Sequence[Any]) -> list[list[str] | None]:
        inner = getattr(feature, "feature", None)
        known = inner.names if isinstance(inner, ClassLabel) else None
        return [None if missing(value) else self._names(value, known) for value in values]

    def _names(self, value: Any, known: Sequence[str] | None) -> list[str]:
        if isinstance(value, str):
            value = [part.strip() for part in value.split(self._separator) if part.strip()]
        if not isinstance(value, list | tuple):
            reason = f"the labels must be lists or texts of names, got {shown(value)}"
            raise StudyError(reason, LABEL_KEY)
        return [known[each] if known else name_of(each) for each in value]

    def names(self, feature: Any, labels: Splits) -> tuple[str, ...]:
        inner = getattr(feature, "feature", None)
        if isinstance(inner, ClassLabel):
            return tuple(inner.names)
        trained = {name for row in labels["train"] for name in row}
        if not trained:
            raise StudyError("no training row has a label", LABEL_KEY)
        return in_order({name for rows in labels.values() for row in rows for name in row})

    def targets(self, names: Sequence[str], labels: Sequence[Sequence[str]]) -> list[list[float]]:
        return [[float(name in row) for name in names] for row in labels]

    def stratum(self, target: Any) -> Hashable:
        return tuple(target)

    def used(self, names: Sequence[str], targets: Sequence[Sequence[float]]) -> list[str]:
        return [
            n for n, column in zip(names, zip(*targets, strict=True), strict=True) if any(column)
        ]


class Numbers(Labels):
    """A number a row."""

    def read(self, feature: Any, values: Sequence[Any]) -> list[float | None]:
        return [None if missing(v) or v == "" else _number(v) for v in values]

    def names(self, feature: Any, labels: Splits) -> tuple[str, ...]:
        if len(set(labels["train"])) < 2:
            reason = f"every training row has the value {labels['train'][0]}"
            raise StudyError(reason, LABEL_KEY)
        return ()

    def targets(self, names: Sequence[str], labels: Sequence[float]) -> list[float]:
        return list(labels)


def missing(value: Any) -> bool:
    """Whether a row has no value."""
    return value is None or value != value


def name_of(label: Any) -> str:
    """The spelling of a text, and that of JSON for anything else."""
    if isinstance(label, str):
        return label
    if isinstance(label, bool):
        return str(label).lower()
    if isinstance(label, int) or (isinstance(label, float) and label.is_integer()):
        return str(int(label))
    reason = f"the labels must be names or whole numbers, got {shown(label)}; " + _HINT
    raise StudyError(reason, LABEL_KEY)


_HINT = "numbers are learned with `problem: regression`, lists with `problem: multi_label`"


def _number(value: Any) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise StudyError(f"the labels must be numbers, got {shown(value)}", LABEL_KEY)
    return number


def in_order(names: set[str]) -> tuple[str, ...]:
    """The names in the order of their ids; numbers are sorted as such.

    Raises:
        StudyError: numbers that are no classes.
    """
    if not all(_NUMBER.fullmatch(name) for name in names):
        return tuple(sorted(names))
    fraction = next((name for name in sorted(names) if not float(name).is_integer()), None)
    if fraction is not None:
        reason = f"the labels must be names or whole numbers, got {shown(fraction)}; {_HINT}"
        raise StudyError(reason, LABEL_KEY)
    return tuple(sorted(names, key=lambda name: (float(name), name)))
