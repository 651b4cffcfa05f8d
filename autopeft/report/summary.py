"""A configuration as one line for people."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from itertools import groupby
from typing import Any

from autopeft.core.config import PeftConfig, Placement, Settings
from autopeft.core.declaration import Declaration
from autopeft.core.methods import DECLARATIONS
from autopeft.study.trial import TrialRecord


def summary(config: PeftConfig) -> str:
    """Such as `lora[q,v] r8 @0-2 · adapter/ffn 32 @3-5 · bitfit @5`; `head only` for no placement.

    Layers are indices from 0. Options of no consequence for the size are named where they differ
    from the default.
    """
    parts = [f"{_words(p)} @{spans(p.layers)}" for p in config.placements]
    return " · ".join(parts) or "head only"


def spans(layers: Iterable[int]) -> str:
    """Ascending indices with runs joined: `0-2,5`."""
    runs = []
    for _, run in groupby(enumerate(layers), key=lambda pair: pair[1] - pair[0]):
        indices = [index for _, index in run]
        runs.append(str(indices[0]) if len(indices) == 1 else f"{indices[0]}-{indices[-1]}")
    return ",".join(runs)


def _words(placement: Placement) -> str:
    declared: Any = DECLARATIONS.get(placement.method)
    return _what(placement.method, declared, placement.options)


@lru_cache(4096)
def _what(method: str, declared: type[Declaration] | None, options: Settings) -> str:
    if declared is not None:
        return declared.closed(dict(options)).words()
    return " ".join((method, *(f"{key}={_text(value)}" for key, value in options)))


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def words(record: TrialRecord) -> str:
    """What a trial is, on one line."""
    if record.proposer is not None:
        return f"one-shot search: {record.proposer}"
    name = "" if record.baseline is None else f"{record.baseline}: "
    name = name if record.repeat_of is None else f"{record.repeat_of} again: "
    return name + summary(record.config)
