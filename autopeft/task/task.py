"""What a study trains on and by which numbers it judges: the contract of every task."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from datasets import Dataset
from pydantic import Field

from autopeft.core.validation import Section
from autopeft.model.head import Head
from autopeft.task.data import Data
from autopeft.task.own import OwnMetric
from autopeft.task.split import Stratum, complete, limited
from autopeft.task.tables import SPLITS
from autopeft.task.tokens import Examples

Goal = Literal["maximize", "minimize"]


@dataclass(frozen=True)
class Metric:
    """A number that says how well predictions agree with what is true.

    Attributes:
        goal: whether more or less of it is better.
        compute: from what is true and what is predicted of each row, in the same order.
    """

    name: str
    goal: Goal
    compute: Callable[[Sequence[Any], Sequence[Any]], float]


@dataclass(frozen=True)
class Judged:
    """What an evaluation has seen.

    Attributes:
        wanted: what is true of each row.
        given: what is predicted of it.
        loss: mean of all rows by their weights.
        references: what else is known of each row, where the task needs it.
    """

    wanted: Sequence[Any]
    given: Sequence[Any]
    loss: float
    references: Sequence[Any] = ()


def token_accuracy(wanted: Sequence[Sequence[Any]], given: Sequence[Sequence[Any]]) -> float:
    """The share of tokens that are predicted as they are, over all rows."""
    pairs = [pair for rows in zip(wanted, given, strict=True) for pair in zip(*rows, strict=True)]
    return sum(one == other for one, other in pairs) / max(1, len(pairs))


class Task(Section):
    """The mapping `task` of a study; a class for each `type`.

    Attributes:
        data: id of the hub, file, folder or package, see `read_tables`.
        metric: one of the objectives, which is about this task; None is any.
        max_length: tokens after which a text is cut.
        max_train_samples: training examples used; None is all.
        max_eval_samples: examples used of validation and of test each; None is all.
        validation_fraction: of the training examples, for validation and for test each, where
            the data has no such split.
        own_metrics: further numbers by name.
    """

    type: str
    data: str
    metric: str | None = None
    max_length: int = Field(default=128, ge=4, le=2**20)
    max_train_samples: int | None = Field(default=None, ge=2)
    max_eval_samples: int | None = Field(default=None, ge=2)
    validation_fraction: float = Field(default=0.1, gt=0, lt=0.5)
    own_metrics: dict[str, OwnMetric] = Field(default_factory=dict)

    @property
    @abstractmethod
    def head(self) -> Head:
        """What is put on the model."""

    @property
    @abstractmethod
    def metrics(self) -> Mapping[str, Metric]:
        """What predictions are judged by, by name."""

    @property
    def longest(self) -> int:
        """Tokens after which what a model reads at a time is cut."""
        return self.max_length

    @property
    def new_tokens(self) -> int:
        """How many tokens the longest answer has that the model gives by itself; 0 of none."""
        return 0

    @abstractmethod
    def load(self) -> Data:
        """The examples.

        Raises:
            StudyError: they are not there, or are not of this task.
        """

    @abstractmethod
    def encode(self, data: Data, reader: Any) -> Examples:
        """The examples as a model reads them.

        Args:
            data: as `load` returns them.
            reader: tokenizer of the model, or processor of images.

        Raises:
            StudyError: some cannot be read by it.
        """

    def asked(self, names: Iterable[str]) -> Task:
        """The task, which measures at least these numbers of `goals`."""
        return self

    def cut(self, tables: dict[str, Dataset], stratum: Stratum = None) -> dict[str, Dataset]:
        """The three splits, none larger than it may be, see `complete` and `limited`."""
        splits = complete(tables, self.validation_fraction, stratum)
        most = {"train": self.max_train_samples}
        return {s: limited(splits[s], most.get(s, self.max_eval_samples), stratum) for s in SPLITS}

    @property
    def goals(self) -> dict[str, Goal]:
        """Which way every number goes that an objective may name."""
        goals: dict[str, Goal] = {name: m.goal for name, m in self.metrics.items()}
        own: dict[str, Goal] = {name: m.goal for name, m in self.own_metrics.items()}
        return {"loss": "minimize", **goals, **own}

    def measure(self, names: Sequence[str], judged: Judged) -> dict[str, float]:
        """Every number by name; `names` are those of the classes."""
        wanted, given = judged.wanted, judged.given
        values = {name: float(m.compute(wanted, given)) for name, m in self.metrics.items()}
        return {**values, **self.owned(names, wanted, given), "loss": judged.loss}

    def owned(
        self, names: Sequence[str], wanted: Sequence[Any], given: Sequence[Any]
    ) -> dict[str, float]:
        """The numbers of the user's own."""
        if not self.own_metrics:
            return {}
        plain = [self.plain(names, side) for side in (wanted, given)]
        return {name: metric(*plain) for name, metric in self.own_metrics.items()}

    def plain(self, names: Sequence[str], rows: Sequence[Any]) -> list[Any]:
        """What is true or predicted of each row, in the terms of the data: ids as names."""

        def named(value: Any) -> Any:
            return [*map(named, value)] if isinstance(value, list) else names[value]

        return [named(row) if names else row for row in rows]
