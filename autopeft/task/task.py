"""What a study trains on and by which number it judges."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from pydantic import Field, field_validator
from sklearn import metrics as sk

from autopeft.core.errors import unknown
from autopeft.core.validation import Section, validated
from autopeft.task.data import Columns, Data, load_data

Labels = Sequence[int]


@dataclass(frozen=True)
class Metric:
    """A number that says how well predicted labels agree with the true ones.

    Attributes:
        goal: whether more or less of it is better.
        compute: from true and predicted labels.
    """

    name: str
    goal: Literal["maximize", "minimize"]
    compute: Callable[[Labels, Labels], float]


def _balanced_accuracy(labels: Labels, predictions: Labels) -> float:
    """The mean recall of the classes that occur, without a warning for others."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return float(sk.balanced_accuracy_score(labels, predictions))


_MACRO = {"average": "macro", "zero_division": 0.0}
METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("accuracy", "maximize", sk.accuracy_score),
        Metric("balanced_accuracy", "maximize", _balanced_accuracy),
        Metric("f1", "maximize", partial(sk.f1_score, **_MACRO)),
        Metric("matthews_correlation", "maximize", sk.matthews_corrcoef),
        Metric("precision", "maximize", partial(sk.precision_score, **_MACRO)),
        Metric("recall", "maximize", partial(sk.recall_score, **_MACRO)),
    )
}


class Task(Section):
    """The mapping `task` of a study.

    Attributes:
        data: id of the hub, file, folder or package, see `read_tables`.
        metric: a name of `METRICS`; `f1`, `precision` and `recall` are means over the classes.
        text_column: None, like the other columns, stands for the obvious one.
        max_length: tokens after which a text is cut.
        max_train_samples: training examples used; None is all.
        max_eval_samples: examples used of validation and of test each; None is all.
        validation_fraction: of the training examples, for validation and for test each, where
            the data has no such split.
    """

    type: Literal["text-classification"] = "text-classification"
    data: str
    metric: str = "accuracy"
    text_column: str | None = None
    text_pair_column: str | None = None
    label_column: str | None = None
    max_length: int = Field(default=128, ge=4, le=2**20)
    max_train_samples: int | None = Field(default=None, ge=2)
    max_eval_samples: int | None = Field(default=None, ge=2)
    validation_fraction: float = Field(default=0.1, gt=0, lt=0.5)

    @field_validator("metric")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in METRICS:
            raise ValueError(unknown("metric", name, METRICS))
        return name

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> Task:
        """The task that `mapping` describes.

        Raises:
            StudyError: an unknown key, a missing one, or a value out of its range.
        """
        return validated(cls, mapping, "task")

    def load(self) -> Data:
        """The examples.

        Raises:
            StudyError: see `load_data`.
        """
        return load_data(
            self.data,
            Columns(self.text_column, self.text_pair_column, self.label_column),
            max_train_samples=self.max_train_samples,
            max_eval_samples=self.max_eval_samples,
            validation_fraction=self.validation_fraction,
        )


def measure(labels: Labels, predictions: Labels) -> dict[str, float]:
    """Every metric by name."""
    return {name: float(metric.compute(labels, predictions)) for name, metric in METRICS.items()}
