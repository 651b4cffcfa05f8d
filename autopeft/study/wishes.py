"""What people ask of the trials of a study while it runs."""

from __future__ import annotations

import time
from typing import Any, Literal

import optuna

Wish = Literal["stop", "pause", "resume"]

WISHES: tuple[Wish, ...] = ("stop", "pause", "resume")

BY_HAND = "by hand"
"""Why a trial was stopped or pauses that somebody wanted so."""

_LOOK_AGAIN = 1.0
"""Seconds for which what was read is taken for what is wanted."""


def wish(record: optuna.Study, number: int, wanted: Wish) -> None:
    """Writes what is wanted of a trial; whoever trains it does so at its next rung."""
    record.set_user_attr(_key(number), wanted)


class Wishes:
    """What is wanted of each trial, as the record says it.

    Args:
        record: of the study.
    """

    def __init__(self, record: optuna.Study) -> None:
        self._record = record
        self._read: dict[str, Any] = {}
        self._again = 0.0

    def of(self, number: int) -> Wish | None:
        """What was wanted last of a trial; None where nothing ever was."""
        if time.monotonic() >= self._again:
            self._read = self._record.user_attrs
            self._again = time.monotonic() + _LOOK_AGAIN
        return self._read.get(_key(number))


def _key(number: int) -> str:
    return f"wish:{number}"
