"""A small study written down by hand."""

from __future__ import annotations

from dataclasses import replace

from autopeft.core.config import PeftConfig, Placement
from autopeft.core.report import Report
from autopeft.objective.objective import Objective
from autopeft.study.trial import TrialRecord

ACCURACY = Objective("accuracy", "maximize", reference=0.5)
PARAMS = Objective("trainable_params", "minimize", "parameters", True, "log", 1e6)
MEMORY = Objective("peak_memory", "minimize", "bytes", True, "log", 4e9)
OBJECTIVES = (ACCURACY, PARAMS, MEMORY)


def lora(r: int, layers: range | list[int], **options: object) -> Placement:
    given = {"targets": ("q", "v"), "r": r, "lora_alpha": None, "lora_dropout": 0.0, **options}
    return Placement.of("lora", layers, given)


def adapter(size: int, layers: range | list[int], **options: object) -> Placement:
    given = {"form": "sequential", "at": "ffn", "size": size, "activation": "relu"}
    return Placement.of("adapter", layers, {**given, "bias": True, "scale": 1.0, **options})


def complete(
    number: int,
    accuracy: float,
    params: float,
    memory: float = 1e9,
    placements: tuple[Placement, ...] = (lora(8, range(6)),),
    baseline: str | None = None,
) -> TrialRecord:
    """A trial that was trained for two epochs."""
    known = {"trainable_params": params, "peak_memory": memory}
    return TrialRecord(
        number=number,
        state="complete",
        config=PeftConfig.of(placements, {"learning_rate": 1e-3}),
        values={"accuracy": accuracy, **known},
        known=known,
        reports=tuple(
            Report(30 * e, e, {"accuracy": accuracy - 0.1 / e, "validation_loss": 0.5 / e})
            for e in (1, 2)
        ),
        baseline=baseline,
        seconds=12.0,
    )


def again(number: int, of: int, accuracy: float, test: float) -> TrialRecord:
    """Trial `of` of the study once more, with a fresh seed."""
    values = {**STUDY[of].values, "accuracy": accuracy}
    fresh = replace(STUDY[of], number=number, values=values, repeat_of=of, baseline=None)
    return replace(fresh, test={"accuracy": test})


STUDY = (
    complete(0, 0.82, 73_728, 1.1e9, baseline="lora"),
    complete(1, 0.80, 90_000, 1.3e9, (adapter(48, range(6)),), baseline="pfeiffer"),
    complete(2, 0.70, 0, 0.6e9, (), baseline="head-only"),
    complete(3, 0.85, 300_000, 1.4e9, (lora(16, range(6)), adapter(64, [4, 5]))),
    complete(4, 0.845, 60_000, 1.0e9, (adapter(32, [3, 4, 5]),)),
    complete(5, 0.79, 30_000, 1.0e9, (lora(4, [4, 5]),)),
    complete(6, 0.78, 40_000, 1.2e9, (lora(4, [0, 5]),)),
    TrialRecord(
        7,
        "stopped",
        PeftConfig.of([lora(8, [0])]),
        known={"trainable_params": 12_288.0, "peak_memory": 1.2e9},
        reports=(Report(30, 1.0, {"accuracy": 0.6, "validation_loss": 0.7}),),
        seconds=6.0,
    ),
    TrialRecord(8, "failed", PeftConfig.of([lora(8, [1])]), error="out of memory <b>&"),
    TrialRecord(9, "rejected", PeftConfig.of([lora(64, [1])]), error="peak_memory exceeds 16 GB"),
    TrialRecord(10, "running", PeftConfig.of([lora(8, [2])])),
    TrialRecord(11, "waiting", PeftConfig()),
)
