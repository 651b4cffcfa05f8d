"""What a study must respect."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from autopeft.core.config import PeftConfig
from autopeft.core.order import Order
from autopeft.objective.quantity import Known


@dataclass(frozen=True)
class Terms:
    """What a study must respect.

    Attributes:
        known: how quantities are computed that are known before training, by name.
        limits: the greatest value of each limited quantity, in its unit; falls where memory is
            too short.
        n_trials: trials in all, baselines and failures included.
        seed: of training.
        rungs: epochs after which a trial reports.
        folder: for trained tensors.
        baselines: configurations that are trained first, by name.
        proposers: one-shot searches that run after those, each its `type` and options.
        largest: what their trials show, the configuration with the most of everything.
        n_finalists: trials that are trained again at the end, at most, with the baselines; with 0
            nothing is.
        n_seeds: fresh trainings of each of those.
        lengths: epochs that these trainings may have, see `repeats`.
        rerun: number of a trial that is trained again in place of finalists and baselines.
        device: `cpu` or `cuda`, what a worker trains on.
        device_memory: bytes of that; None where it is not known.
    """

    known: Mapping[str, Known]
    limits: dict[str, float]
    n_trials: int
    seed: int
    rungs: tuple[float, ...]
    folder: str
    baselines: Mapping[str, PeftConfig] = field(default_factory=dict)
    proposers: Sequence[Mapping[str, Any]] = ()
    largest: PeftConfig = field(default_factory=PeftConfig)
    n_finalists: int = 0
    n_seeds: int = 1
    lengths: tuple[float, ...] = (1.0,)
    rerun: int | None = None
    device: str = "cpu"
    device_memory: float | None = None

    def order(self, attrs: Mapping[str, Any], folder: str, stamp: str) -> Order:
        """How far a trial with these attributes is trained, and where its tensors go."""
        return Order(
            (attrs["epochs"],) if "epochs" in attrs else self.rungs,
            attrs.get("seed", self.seed),
            folder,
            stamp,
            tests="repeat_of" in attrs,
            reached=attrs["reports"][-1]["fidelity"] if attrs.get("reports") else 0.0,
            proposer=json.loads(attrs["proposer"]) if "proposer" in attrs else None,
        )

    def excess(self, known: Mapping[str, float]) -> str | None:
        """Which limit these quantities do not keep, as NaN keeps none; None where they keep all."""
        for name, limit in self.limits.items():
            if not known[name] <= limit:
                return f"{name} is {known[name]:,.0f}, the limit is {limit:,.0f}"
        return None
