"""`Document`: what a study writes down of a trial beside Optuna's own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from autopeft.core.config import PeftConfig
from autopeft.core.report import Report

N_REMEMBERED = 2**14
"""Configurations that are not read again, since every proposal reads all trials."""


@dataclass(frozen=True)
class Document:
    """The attributes of a trial, each read when it is asked for.

    Attributes:
        attributes: as JSON keeps them; any may be missing.
    """

    attributes: Mapping[str, Any]

    @property
    def config(self) -> PeftConfig | None:
        """What was, is or will be trained; None before that is decided.

        Raises:
            AutoPeftError, KeyError, TypeError, ValueError: what stands there is none.
        """
        written = self.attributes.get("config")
        return None if written is None else _config(json.dumps(written))

    @property
    def known(self) -> Mapping[str, float]:
        """The objectives that are computed before training, in the user's units."""
        return self.attributes.get("known", {})

    @property
    def reports(self) -> tuple[Report, ...]:
        """The learning curve, in the order of training."""
        return tuple(Report(**report) for report in self.attributes.get("reports", ()))

    @property
    def diverged(self) -> bool:
        """Whether numbers of the training were not finite any more."""
        return self.attributes.get("diverged", False)

    @property
    def baseline(self) -> str | None:
        """Name of the fixed configuration, or None where the search proposed it."""
        return self.attributes.get("baseline")

    @property
    def proposer(self) -> str | None:
        """Name of the one-shot search that a trial is, or None."""
        written = self.attributes.get("proposer")
        return None if written is None else str(json.loads(written)["type"])


@lru_cache(N_REMEMBERED)
def _config(written: str) -> PeftConfig:
    return PeftConfig.from_dict(json.loads(written))
