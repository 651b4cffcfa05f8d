"""The tasks by the type that a study file gives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autopeft.core.errors import StudyError, unknown
from autopeft.core.registry import Registry
from autopeft.core.validation import validated
from autopeft.task.causal_lm import CausalLM
from autopeft.task.custom import Custom
from autopeft.task.image_classification import ImageClassification
from autopeft.task.multiple_choice import MultipleChoice
from autopeft.task.question_answering import QuestionAnswering
from autopeft.task.seq2seq_lm import Seq2SeqLM
from autopeft.task.task import Task
from autopeft.task.text_classification import TextClassification
from autopeft.task.token_classification import TokenClassification

TASKS: Registry[type[Task]] = Registry(
    {
        "causal-lm": CausalLM,
        "custom": Custom,
        "image-classification": ImageClassification,
        "multiple-choice": MultipleChoice,
        "question-answering": QuestionAnswering,
        "seq2seq-lm": Seq2SeqLM,
        "text-classification": TextClassification,
        "token-classification": TokenClassification,
    },
    "autopeft.tasks",
    lambda kind: isinstance(kind, type) and issubclass(kind, Task),
)

DEFAULT = "text-classification"


def task_of(mapping: Mapping[str, Any]) -> Task:
    """The task that `mapping` describes.

    Raises:
        StudyError: an unknown type or key, a missing one, or a value out of its range.
    """
    kind = mapping.get("type", DEFAULT) if isinstance(mapping, Mapping) else DEFAULT
    if not isinstance(kind, str) or kind not in TASKS:
        raise StudyError(unknown("type", kind, TASKS), "task.type")
    task = validated(TASKS[kind], mapping, "task")
    if task.metric is not None and task.metric not in task.goals:
        raise StudyError(unknown("metric", task.metric, task.goals), "task.metric")
    return task
