"""Which trials of a study keep limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

from autopeft.api.outcome import Outcome
from autopeft.api.run import Prepared, prepare
from autopeft.core.errors import StudyError
from autopeft.objective.limit import parse_limit
from autopeft.study.trial import TrialRecord


class _Known:
    """What is known of the trials of a study, from its record or else computed."""

    def __init__(self, outcome: Outcome) -> None:
        self._spec = outcome.spec

    @cached_property
    def _prepared(self) -> Prepared:
        return prepare(self._spec)

    @property
    def parameters(self) -> int:
        """Of the backbone."""
        return self._prepared.space.shape.parameters

    def value(self, name: str, trial: TrialRecord) -> float:
        """Of a known objective."""
        if name in trial.known:
            return trial.known[name]
        return self._prepared.known[name].value(trial.config)


def limited(outcome: Outcome, limits: Mapping[str, Any]) -> Outcome:
    """A study as if it had only the complete trials that keep some limits; itself with none.

    What a trial takes that the record does not tell is computed, without training.

    Args:
        outcome: what the record of the study says.
        limits: greatest values by name of a known objective: `{"trainable_params": "0.2%",
            "peak_memory": "8GB"}`.

    Raises:
        StudyError: a limit that is none, or that no complete trial keeps.
    """
    if not limits:
        return outcome
    known = _Known(outcome)
    kept = [trial for trial in outcome.trials if trial.state == "complete"]
    for name, raw in limits.items():
        of = known.parameters if str(raw).strip().endswith("%") else None
        most = parse_limit(name, raw, of=of)
        values = [known.value(name, trial) for trial in kept]
        if values and min(values) > most:
            least = f"the least has {min(values):,.0f}, the limit is {most:,.0f}"
            raise StudyError(f"no complete trial meets {raw}: {least}", f"limits.{name}")
        kept = [trial for trial, value in zip(kept, values, strict=True) if value <= most]
    return replace(outcome, trials=tuple(kept), limits={**outcome.limits, **limits})
