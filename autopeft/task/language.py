"""What all tasks have in common whose models write text."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import Field

from autopeft.task.answers import COMPARISONS
from autopeft.task.task import Goal, Judged, Metric, Task, token_accuracy


class LanguageTask(Task):
    """Text that a model is to write.

    Attributes:
        predict_with_generate: whether the model answers the prompts of validation and test by
            itself; an objective that needs it asks for it.
        max_new_tokens: after which such an answer ends; None is the length of the longest that is
            wanted, as far as texts are not cut.
    """

    predict_with_generate: bool = False
    max_new_tokens: int | None = Field(default=None, ge=1, le=2**20)

    @property
    def metrics(self) -> Mapping[str, Metric]:
        return {"token_accuracy": Metric("token_accuracy", "maximize", token_accuracy)}

    @property
    def goals(self) -> dict[str, Goal]:
        comparisons: dict[str, Goal] = dict.fromkeys(COMPARISONS, "maximize")
        return {**super().goals, "perplexity": "minimize", **comparisons}

    @property
    def longest_answer(self) -> int:
        """Tokens after which what is wanted is cut."""
        return self.max_length

    @property
    def new_tokens(self) -> int:
        longest = self.max_new_tokens or self.longest_answer
        return longest if self.predict_with_generate else 0

    def asked(self, names: Iterable[str]) -> LanguageTask:
        compares = {*COMPARISONS, *self.own_metrics}
        generates = self.predict_with_generate or not compares.isdisjoint(names)
        return self.model_copy(update={"predict_with_generate": generates})

    def owned(
        self, names: Sequence[str], wanted: Sequence[Any], given: Sequence[Any]
    ) -> dict[str, float]:
        """None of tokens: they are of answers, see `Answers`."""
        return {}

    def measure(self, names: Sequence[str], judged: Judged) -> dict[str, float]:
        perplexity = math.exp(min(judged.loss, 700.0))
        return {**super().measure(names, judged), "perplexity": perplexity}
