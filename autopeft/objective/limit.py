"""Limits on known objectives, as people write them: `1%`, `16GB`, `300000`."""

from __future__ import annotations

from autopeft.core.errors import StudyError, raised_as, unknown
from autopeft.core.quantity import parse_quantity
from autopeft.objective.quantity import KNOWN


def parse_limit(name: str, value: str | int | float, of: float | None = None) -> float:
    """The greatest value allowed of a known objective, in its unit.

    Args:
        name: one of `KNOWN`.
        value: an amount; see `core.quantity`. Bytes take no per cents, counts no `GB`.
        of: what per cents refer to, such as the number of the backbone's parameters.

    Raises:
        StudyError: an unknown name, or an amount that is none or does not fit the unit.
    """
    if name not in KNOWN:
        raise StudyError(unknown("limit", name, KNOWN), "limits")
    where, unit = f"limits.{name}", KNOWN[name].unit
    if unit != "bytes" and str(value).strip().upper().endswith("B"):
        raise StudyError(f"counts {unit}, not bytes, got {value!r}", where)
    with raised_as(StudyError):
        return parse_quantity(value, where, None if unit == "bytes" else of)
