"""What classes, sets of classes and numbers are learned by, of texts or of images."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import ValidationInfo, field_validator
from scipy import stats
from sklearn import metrics as sk
from torch import Tensor

from autopeft.model.head import (
    MANY_LABELS,
    ONE_LABEL,
    REGRESSION,
    Criterion,
    Head,
    ManyLabels,
    OneLabel,
    Value,
)
from autopeft.task.labels import Classes, ClassSets, Labels, Numbers
from autopeft.task.task import Metric, Task
from autopeft.task.tokens import Examples


def _balanced_accuracy(wanted: Sequence[int], given: Sequence[int]) -> float:
    """The mean recall of the classes that occur, without a warning for others."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return float(sk.balanced_accuracy_score(wanted, given))


def _correlation(score: Any, wanted: Sequence[float], given: Sequence[float]) -> float:
    """A coefficient; 0 where one side is constant."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        value = float(score(wanted, given).statistic)
    return value if np.isfinite(value) else 0.0


def _named(*metrics: Metric) -> Mapping[str, Metric]:
    return {metric.name: metric for metric in metrics}


def _scores(average: str) -> tuple[Metric, ...]:
    """The harmonic mean of precision and recall, and both of them."""
    options = {"average": average, "zero_division": 0.0}
    return (
        Metric("f1", "maximize", partial(sk.f1_score, **options)),
        Metric("precision", "maximize", partial(sk.precision_score, **options)),
        Metric("recall", "maximize", partial(sk.recall_score, **options)),
    )


_METRICS: Mapping[str, Mapping[str, Metric]] = {
    "single_label": _named(
        Metric("accuracy", "maximize", sk.accuracy_score),
        Metric("balanced_accuracy", "maximize", _balanced_accuracy),
        Metric("matthews_correlation", "maximize", sk.matthews_corrcoef),
        *_scores("macro"),
    ),
    "multi_label": _named(
        Metric("accuracy", "maximize", sk.accuracy_score),
        Metric("hamming_loss", "minimize", sk.hamming_loss),
        Metric(
            "f1_micro",
            "maximize",
            partial(sk.f1_score, average="micro", zero_division=0.0),
        ),
        *_scores("macro"),
    ),
    "regression": _named(
        Metric("pearson", "maximize", partial(_correlation, stats.pearsonr)),
        Metric("spearman", "maximize", partial(_correlation, stats.spearmanr)),
        Metric("rmse", "minimize", sk.root_mean_squared_error),
    ),
}

_CRITERIA: Mapping[str, tuple[Criterion, str, int]] = {
    "single_label": (OneLabel(), ONE_LABEL, 2),
    "multi_label": (ManyLabels(), MANY_LABELS, 2),
    "regression": (Value(), REGRESSION, 1),
}
"""What is trained for, how transformers calls it, and the outputs as long as data say nothing."""


class Classification(Task):
    """What an example is.

    Attributes:
        problem: `single_label` has one class an example, `multi_label` any number of them, such as
            a list of names, `regression` a number.
        label_column: None stands for the obvious one.
        group_column: rows with the same content are never on two sides of a split.
        label_separator: between the names of `multi_label` where they stand in one text.
        class_weight: `balanced` weighs the training examples of each class alike.
    """

    auto: ClassVar[str]
    problem: Literal["single_label", "multi_label", "regression"] = "single_label"
    label_column: str | None = None
    group_column: str | None = None
    label_separator: str = ","
    class_weight: Literal["none", "balanced"] = "none"

    @field_validator("class_weight")
    @classmethod
    def _of_classes(cls, weight: str, others: ValidationInfo) -> str:
        if weight == "balanced" and others.data.get("problem") != "single_label":
            raise ValueError("balanced goes with `problem: single_label`")
        return weight

    @property
    def head(self) -> Head:
        criterion, name, n_labels = _CRITERIA[self.problem]
        return Head(self.type, self.auto, criterion, name, n_labels)

    @property
    def metrics(self) -> Mapping[str, Metric]:
        return _METRICS[self.problem]

    def plain(self, names: Sequence[str], rows: Sequence[Any]) -> list[Any]:
        if self.problem == "multi_label":
            return [[n for n, is_so in zip(names, row, strict=True) if is_so] for row in rows]
        return super().plain(names, rows)

    @property
    def labels(self) -> Labels:
        """How the column of the labels is read."""
        kinds: Mapping[str, Labels] = {
            "single_label": Classes(),
            "multi_label": ClassSets(self.label_separator),
            "regression": Numbers(),
        }
        return kinds[self.problem]

    def weighed(self, examples: Examples) -> Examples:
        """The examples, those of training with what each weighs."""
        if self.class_weight == "none":
            return examples
        train = examples.splits["train"]
        train = replace(train, importance=_balanced(torch.as_tensor(train.labels)))
        return replace(examples, splits={**examples.splits, "train": train})


def _balanced(labels: Tensor) -> Tensor:
    """Weights (examples,) of which every class has the same sum and the mean is 1."""
    counts = labels.bincount().clamp(min=1)
    return len(labels) / ((labels.bincount() > 0).sum() * counts[labels].float())
