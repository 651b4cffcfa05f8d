"""Training by a function of the user's own."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from datasets import Dataset
from pydantic import Field, field_validator

from autopeft.core.errors import unknown
from autopeft.model.head import HEADS, Head
from autopeft.task.data import Data
from autopeft.task.own import PLACE, function_at
from autopeft.task.task import Goal, Metric, Task
from autopeft.task.tokens import Examples


class Custom(Task):
    """Whatever a function of yours trains, on data that it reads by itself.

    Attributes:
        function: `module:name` or `file.py:name`; a generator that takes a `Run` and yields numbers
            at every rung.
        reports: the numbers that it yields, and which way each of them goes.
        model_for: the type of task whose head is put on the model.
        n_labels: outputs of a head that is not pretrained.
        n_validation: examples that the numbers are of, which says how far to trust them.
    """

    type: Literal["custom"] = "custom"
    data: str = ""
    function: str = Field(pattern=PLACE)
    reports: dict[str, Goal] = Field(min_length=1)
    model_for: str = "causal-lm"
    n_labels: int = Field(default=2, ge=1)
    n_validation: int = Field(default=1000, ge=1)

    @field_validator("model_for")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in HEADS:
            raise ValueError(unknown("task type", name, HEADS))
        return name

    @property
    def head(self) -> Head:
        return HEADS[self.model_for]

    @property
    def metrics(self) -> Mapping[str, Metric]:
        return {}

    @property
    def goals(self) -> dict[str, Goal]:
        return self.reports

    def load(self) -> Data:
        """No examples; what tells these data from others is the file of the function."""
        function = self.call()
        file = inspect.getsourcefile(function)
        content = Path(file).read_bytes() if file else b""
        mark = Dataset.from_dict({"text": [hashlib.sha256(content).hexdigest()]})
        has_head = self.head.n_labels is not None
        names = tuple(map(str, range(self.n_labels))) if has_head else ()
        return Data(mark, mark, mark, names)

    def encode(self, data: Data, reader: Any) -> Examples:
        return Examples(data.label_names, {})

    def call(self) -> Callable[..., Any]:
        """The function.

        Raises:
            StudyError: there is none, or it is no generator.
        """
        return function_at(self.function, "task.function", inspect.isgeneratorfunction, "generator")
