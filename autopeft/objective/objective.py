"""`Objective`: what is wanted of a configuration, and the only sign flip of the package."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator
from pydantic.dataclasses import dataclass

from autopeft.core import catalog
from autopeft.core.errors import StudyError, raised_as, unknown
from autopeft.core.validation import STRICT, Section, validated
from autopeft.objective.quantity import KNOWN


@dataclass(frozen=True, config=STRICT)
class Objective:
    """One quantity to minimise or maximise.

    Attributes:
        name: of a metric that training reports or, where `known`, one of `KNOWN`.
        goal: the direction in which the user's values improve.
        unit: for display.
        known: whether the value is computed before training instead of measured by it.
        scale: `log` for counts and bytes, so that a loss is the decimal logarithm of `1 + value`.
        reference: the worst value that still counts in a hypervolume, in the user's unit.
        within: how far behind the best value seen a measured one may be and still be of interest
            to the search, in the user's unit; None where the reference alone decides.
    """

    name: Annotated[str, Field(min_length=1)]
    goal: Literal["minimize", "maximize"]
    unit: str = ""
    known: bool = False
    scale: Literal["linear", "log"] = "linear"
    reference: float = 0.0
    within: Annotated[float, Field(gt=0)] | None = None

    @field_validator("known")
    @classmethod
    def _is_computed(cls, known: bool, info: ValidationInfo) -> bool:
        name = info.data.get("name")
        if known and name is not None and name not in KNOWN:
            raise ValueError(unknown("known objective", name, KNOWN))
        return known

    @field_validator("reference")
    @classmethod
    def _is_on_the_scale(cls, reference: float, info: ValidationInfo) -> float:
        if info.data.get("scale") == "log" and reference < 0:
            raise ValueError(f"must not be negative on a log scale, got {reference:g}")
        return reference

    @field_validator("within")
    @classmethod
    def _is_measured(cls, within: float | None, info: ValidationInfo) -> float | None:
        if within is not None and (info.data.get("known") or info.data.get("scale") == "log"):
            raise ValueError("is for measured objectives on a linear scale")
        return within

    def loss(self, value: float) -> float:
        """The value as a number to minimise; NaN where the scale does not admit the value."""
        if self.scale == "log":
            value = math.log10(1.0 + value) if value >= 0 else math.nan
        return -value if self.goal == "maximize" else value

    @property
    def worst(self) -> float:
        """The loss of the reference."""
        return self.loss(self.reference)


class _Document(Section):
    name: str = ""
    description: str = ""
    objectives: list[Any] = Field(min_length=1)


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
    with raised_as(StudyError):
        document, where = catalog.read("objectives", source)
    try:
        return _objectives(document)
    except StudyError as error:
        raise error.inside(where) from error


def _objectives(document: Mapping[str, Any]) -> tuple[Objective, ...]:
    items = validated(_Document, document).objectives
    objectives = tuple(_objective(item, f"objectives[{i}]") for i, item in enumerate(items))
    names = [objective.name for objective in objectives]
    for i, name in enumerate(names):
        if name in names[:i]:
            raise StudyError(f"{name!r} stands twice", f"objectives[{i}].name")
    return objectives


def _objective(item: Any, where: str) -> Objective:
    objective = validated(Objective, item, where)
    if "reference" not in item:
        raise StudyError("is missing", f"{where}.reference")
    unit = KNOWN[objective.name].unit if objective.name in KNOWN else ""
    return replace(objective, unit=item.get("unit", unit))
