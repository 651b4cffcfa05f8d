"""What a study must respect."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from autopeft.core.config import PeftConfig
from autopeft.objective.known import Known


@dataclass(frozen=True)
class Terms:
    """What a study must respect.

    Attributes:
        known: how known objectives and limited quantities are computed, by name.
        limits: the greatest value of each limited quantity, in its unit.
        n_trials: trials in all, baselines and failures included.
        seed: of training.
        rungs: epochs after which a trial reports.
        folder: for trained tensors.
        baselines: configurations that are trained first, by name.
    """

    known: Mapping[str, Known]
    limits: Mapping[str, float]
    n_trials: int
    seed: int
    rungs: tuple[float, ...]
    folder: str
    baselines: Mapping[str, PeftConfig] = field(default_factory=dict)

    def excess(self, known: Mapping[str, float]) -> str:
        """Which limit these quantities do not keep, as NaN keeps none; empty where all."""
        for name, limit in self.limits.items():
            if not known[name] <= limit:
                return f"{name} is {known[name]:,.0f}, the limit is {limit:,.0f}"
        return ""
