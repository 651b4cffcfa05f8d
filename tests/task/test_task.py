from __future__ import annotations

import warnings
from typing import Any

import pytest

from autopeft.api.run import prepare
from autopeft.core.errors import StudyError
from autopeft.task.registry import task_of
from autopeft.task.task import Judged
from tests import tiny

LABELS, PREDICTIONS = [0, 0, 0, 1], [0, 0, 1, 1]
EXPECTED = {
    "accuracy": 3 / 4,
    "balanced_accuracy": (2 / 3 + 1) / 2,
    "f1": (4 / 5 + 2 / 3) / 2,
    "matthews_correlation": 2 / 12**0.5,
    "precision": (1 + 1 / 2) / 2,
    "recall": (2 / 3 + 1) / 2,
}


def test_metrics_agree_with_their_definitions() -> None:
    task = task_of({"data": "x.csv"})
    assert task.measure((), Judged(LABELS, PREDICTIONS, 0.5)) == pytest.approx(
        {**EXPECTED, "loss": 0.5}
    )
    assert task.goals == {**dict.fromkeys(EXPECTED, "maximize"), "loss": "minimize"}


def test_a_class_that_never_occurs_is_no_reason_to_warn() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        task_of({"data": "x.csv"}).measure((), Judged([0, 1], [0, 2], 0.5))
        task_of({"data": "x.csv"}).measure((), Judged([0, 1], [0, 0], 0.5))


def test_a_task_knows_its_defaults() -> None:
    task = task_of({"data": "nyu-mll/glue:sst2"})
    assert task.metric is None
    assert (task.type, task.max_length, task.validation_fraction) == (
        "text-classification",
        128,
        0.1,
    )
    assert task == task_of({"data": "nyu-mll/glue:sst2"})


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"metrik": "f1"}, r"task: unknown key 'metrik'; known: .* \(did you mean 'metric'\?\)"),
        ({"metric": "acuracy"}, r"task.metric: unknown metric .* \(did you mean 'accuracy'\?\)"),
        ({"max_length": "64"}, "task.max_length: .*valid integer, got '64'"),
        ({"max_train_samples": 0}, "task.max_train_samples: .*greater than or equal to 2, got 0"),
        ({"validation_fraction": 0.5}, "task.validation_fraction: .*less than 0.5, got 0.5"),
        (
            {"type": "regression"},
            "task.type: unknown type 'regression'; known: causal-lm, custom, image-class",
        ),
        ({"type": {"regression": 1}}, "task.type: unknown type .*; known: causal-lm, custom"),
        ({"data": None}, "task.data: .*valid string, got None"),
    ],
)
def test_a_wrong_mapping_says_which_key(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(StudyError, match=f"^{reason}"):
        task_of({"data": "reviews.csv", **options})


def test_data_is_needed() -> None:
    with pytest.raises(StudyError, match=r"^task.data: is missing"):
        task_of({})


OWN = "tests.task.own_training"


def test_metrics_of_ones_own_see_names(tmp_path):
    """Of classes, of sets of them, and of lists of tags; every one may be an objective."""
    names = ("no", "yes")
    own = {"hits": {"function": f"{OWN}:share_of_yes"}}
    task = task_of({"data": "x.csv", "own_metrics": own})
    assert task.goals["hits"] == "maximize"
    assert task.measure(names, Judged([1, 1, 0], [1, 0, 1], 0.5))["hits"] == 0.5
    own = {"cover": {"function": f"{OWN}:overlap", "goal": "minimize"}}
    task = task_of({"data": "x.csv", "problem": "multi_label", "own_metrics": own})
    assert task.goals["cover"] == "minimize"
    assert task.measure(names, Judged([[1, 1], [0, 1]], [[0, 1], [0, 0]], 0.5))["cover"] == 1 / 3
    task = task_of({"type": "token-classification", "data": "x.csv", "own_metrics": own})
    assert task.measure(("O", "B-X"), Judged([[0, 1], [1]], [[0, 0], [1]], 0.5))["cover"] == 2 / 3


def test_a_metric_of_ones_own_that_is_none(tmp_path):
    study = {**tiny.study(tmp_path), "name": "own"}
    study["task"]["own_metrics"] = {"hits": {"function": f"{OWN}:share_of_no"}}
    with pytest.raises(StudyError, match=r"own_metrics: unknown function 'share_of_no'.*did you"):
        prepare(study)
