"""What a continued study must agree with, by what it means and not by how it is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from autopeft.core.errors import AutoPeftError
from autopeft.model.fingerprint import fingerprint
from autopeft.objective.objective import Objective
from autopeft.space.form import Form
from autopeft.space.space import SearchSpace
from autopeft.task.data import Data
from autopeft.task.registry import task_of
from autopeft.task.task import Task

DATA = "task.data"


def model_identity(reference: str) -> dict[str, str]:
    """The name of a model and the digests of its files."""
    return {"name": reference, **fingerprint(reference)}


def data_identity(reference: str, data: Data) -> dict[str, Any]:
    """The name of the data, their classes and the digest of all examples."""
    return {"name": reference, "labels": list(data.label_names), "digest": data.digest[:16]}


def task_identity(task: Task) -> dict[str, Any]:
    """The task without the place of its data, and what is said of its metric."""
    return task.model_dump(mode="json", exclude={"data", "metric"})


def space_identity(space: Form) -> dict[str, Any]:
    """The space without what is said about it."""
    document = space.to_dict()
    return {k: v for k, v in document.items() if k not in ("description", "reference")}


def objectives_identity(objectives: Sequence[Objective]) -> list[str]:
    """Which way each objective goes, in their order."""
    return [f"{o.goal} {o.name}" for o in objectives]


def meaning(key: str, recorded: Any) -> Any:
    """A recorded value with all that has got a default since it was written.

    What means nothing any more stays as it is, and so differs from whatever is asked for.
    """
    try:
        if key == "task":
            return task_identity(task_of({**recorded, "data": ""}))
        if key == "space":
            return space_identity(SearchSpace.load(recorded))
    except AutoPeftError:
        return recorded
    return {"name": recorded} if key == "model" and isinstance(recorded, str) else recorded


def label_names(identity: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The classes of the data that a recorded study was trained on; None in the first records."""
    labels = identity.get(DATA, {}).get("labels")
    return None if labels is None else tuple(labels)
