"""How far trials are trained, and what one that was broken off leaves to the next."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial

from autopeft.core.config import PeftConfig
from autopeft.core.order import Order
from autopeft.study.record import stamp_of
from autopeft.study.terms import Terms

Attrs = Mapping[str, Any]
"""Attributes of a trial, of which these hold its `config`, the `reports`, which come with it where
it goes on for another, and which that is, `retry`."""


class Orders:
    """The orders of the trials of a study, and their folders.

    Args:
        identity: of the study.
        terms: of the study.
    """

    def __init__(self, identity: str, terms: Terms) -> None:
        self._id, self._terms = identity, terms

    def order(self, number: int, attrs: Attrs) -> Order:
        """From the last rung of the trial, which is the start where it has reported nothing."""
        seed = attrs.get("seed", self._terms.seed)
        rungs = (attrs["epochs"],) if "epochs" in attrs else self._terms.rungs
        stamp = stamp_of(self._id, PeftConfig.from_dict(attrs["config"]))
        tests, folder = "repeat_of" in attrs, str(self._folder(number))
        return Order(rungs, seed, folder, stamp, tests, _reached(attrs))

    def keeps(self, number: int, attrs: Attrs) -> bool:
        """Whether the file of the last rung of a trial is there."""
        rung = _reached(attrs)
        return bool(rung) and self.order(number, attrs).kept_at(rung).is_file()

    def is_at_hand(self, number: int, attrs: Attrs) -> bool:
        """Whether a trial that begins has what it goes on from; then that is its own."""
        if not _reached(attrs):
            return True
        try:
            self._folder(attrs["retry"]).rename(self._folder(number))
        except OSError:
            return False
        return self.keeps(number, attrs)

    def drop(self, number: int) -> None:
        """Deletes the files of a trial."""
        shutil.rmtree(self._folder(number), ignore_errors=True)

    def _folder(self, number: int) -> Path:
        return Path(self._terms.folder) / "trials" / self._id[:8] / str(number)


def drop_states(order: Order) -> None:
    """Deletes what is kept before the last rung."""
    for rung in order.rungs[:-1]:
        order.kept_at(rung).unlink(missing_ok=True)


def seconds(attrs: Attrs) -> float:
    """How long a trial took to its last rung."""
    spent = ("train_seconds", "eval_seconds")
    return sum(r["metrics"].get(name, 0.0) for r in attrs.get("reports", ()) for name in spent)


def attempts_in_vain(attrs: Attrs, trials: Sequence[FrozenTrial]) -> int:
    """How often the training of a trial was broken off at the rung at which it began.

    Args:
        attrs: of the trial.
        trials: of the study, by number.
    """
    before = trials[attrs["retry"]].user_attrs if "retry" in attrs else {}
    return 0 if _reached(attrs) > _reached(before) else attrs.get("attempts", 0)


def _reached(attrs: Attrs) -> float:
    reports = attrs.get("reports")
    return reports[-1]["fidelity"] if reports else 0.0
