"""`Objective`: what is wanted of a configuration, and the only sign flip of the package."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

from autopeft.core import catalog
from autopeft.core.errors import AutoPeftError, StudyError, unknown

KNOWN: Mapping[str, str] = {
    "trainable_params": "parameters",
    "stored_params": "parameters",
    "peak_memory": "bytes",
    "training_flops": "operations",
}
"""The objectives that are computed before training, with their units."""

GOALS = ("minimize", "maximize")
SCALES = ("linear", "log")


@dataclass(frozen=True)
class Objective:
    """One quantity to minimise or maximise.

    Attributes:
        name: of a metric that training reports or, where `known`, one of `KNOWN`.
        goal: the direction in which the user's values improve.
        unit: for display.
        known: whether the value is computed before training instead of measured by it.
        scale: `log` for counts and bytes, so that a loss is the decimal logarithm of `1 + value`.
        reference: the worst value that still counts in a hypervolume, in the user's unit.
    """

    name: str
    goal: Literal["minimize", "maximize"]
    unit: str = ""
    known: bool = False
    scale: Literal["linear", "log"] = "linear"
    reference: float = 0.0

    def loss(self, value: float) -> float:
        """The value as a number to minimise; NaN where the scale does not admit the value."""
        if self.scale == "log":
            value = math.log10(1.0 + value) if value >= 0 else math.nan
        return -value if self.goal == "maximize" else value

    @property
    def worst(self) -> float:
        """The loss of the reference."""
        return self.loss(self.reference)


def load_objectives(
    reference: catalog.Reference | Sequence[Mapping[str, Any]],
) -> tuple[Objective, ...]:
    """The objectives that a catalog name, a path, an inline mapping or an inline list stands for.

    A document holds the key `objectives` with a list of mappings, whose keys are the attributes of
    `Objective`; `name`, `goal` and `reference` are required.

    Raises:
        StudyError: not found, an unknown or missing key, a value out of its kind, a name that
            stands twice, or no objective at all; with file and key.
    """
    source: Any = (
        {"objectives": list(reference)} if isinstance(reference, list | tuple) else reference
    )
    try:
        document, where = catalog.read("objectives", source)
    except AutoPeftError as error:
        raise StudyError(error.reason, error.where) from error
    try:
        return _objectives(document)
    except StudyError as error:
        raise error.inside(where) from error


def _objectives(document: Mapping[str, Any]) -> tuple[Objective, ...]:
    _refuse_unknown_keys(document, ("name", "description", "objectives"))
    items = document.get("objectives")
    if not isinstance(items, list | tuple) or not items:
        raise StudyError("expected a list with at least one objective", "objectives")
    objectives: list[Objective] = []
    for index, item in enumerate(items):
        try:
            objective = _objective(item)
            if any(objective.name == other.name for other in objectives):
                raise StudyError(f"{objective.name!r} stands twice", "name")
        except StudyError as error:
            raise error.inside(f"objectives[{index}]") from error
        objectives.append(objective)
    return tuple(objectives)


def _objective(item: object) -> Objective:
    if not isinstance(item, Mapping):
        raise StudyError(f"expected a mapping with name, goal and reference, got {item!r}")
    _refuse_unknown_keys(item, [field.name for field in fields(Objective)])
    for key in ("name", "goal", "reference"):
        if key not in item:
            raise StudyError("is missing", key)
    known = item.get("known", False)
    if not isinstance(known, bool):
        raise StudyError(f"must be true or false, got {known!r}", "known")
    if known and item["name"] not in KNOWN:
        raise StudyError(unknown("known objective", item["name"], KNOWN), "name")
    goal: Any = _one_of("goal", item["goal"], GOALS)
    scale: Any = _one_of("scale", item.get("scale", "linear"), SCALES)
    objective = Objective(
        name=_text("name", item["name"]),
        goal=goal,
        unit=_text("unit", item.get("unit", KNOWN.get(str(item["name"]), ""))),
        known=known,
        scale=scale,
        reference=_number("reference", item["reference"]),
    )
    if math.isnan(objective.worst):
        raise StudyError("must not be negative on a log scale", "reference")
    return objective


def _refuse_unknown_keys(item: Mapping[str, Any], known: Sequence[str]) -> None:
    for key in item:
        if key not in known:
            raise StudyError(unknown("key", key, known))


def _one_of(key: str, value: object, allowed: Sequence[str]) -> str:
    if not isinstance(value, str) or value not in allowed:
        raise StudyError(unknown(key, value, allowed), key)
    return value


def _text(key: str, value: object) -> str:
    if not isinstance(value, str) or (key == "name" and not value):
        raise StudyError(f"must be text, got {value!r}", key)
    return value


def _number(key: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise StudyError(f"must be a finite number, got {value!r}", key)
    return float(value)
