"""Limits on known objectives, as people write them: `1%`, `16GB`, `300000`."""

from __future__ import annotations

import math
import re

from autopeft.core.errors import StudyError, unknown
from autopeft.objective.objective import KNOWN

BYTES = {
    "B": 1,
    "kB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}
_PATTERN = re.compile(r"\s*([0-9]+(?:\.[0-9]*)?(?:[eE][-+]?[0-9]+)?)\s*(%|[A-Za-z]*)\s*")


def parse_limit(name: str, value: str | int | float, of: float | None = None) -> float:
    """The greatest value allowed of a known objective, in its unit.

    Args:
        name: one of `KNOWN`.
        value: a number; a percentage of `of`, such as `1%`; or for bytes a number with one of the
            units in `BYTES` (kB, MB, GB decimal; KiB, MiB, GiB binary).
        of: what a percentage refers to, such as the number of the backbone's parameters.

    Raises:
        StudyError: an unknown name, an unknown or unfitting unit, a negative or infinite number.
    """
    where = f"limits.{name}"
    if name not in KNOWN:
        raise StudyError(unknown("limit", name, KNOWN), "limits")
    match = None if isinstance(value, bool) else _PATTERN.fullmatch(str(value))
    if match is None or not math.isfinite(float(match[1])):
        raise StudyError(f"must be a number such as 300000, 1% or 16GB, got {value!r}", where)
    return float(match[1]) * _factor(name, match[2], of, where)


def _factor(name: str, unit: str, of: float | None, where: str) -> float:
    """What one of the unit is worth in the unit of the objective."""
    if unit == "":
        return 1.0
    if unit == "%":
        if of is None or KNOWN[name] == "bytes":
            raise StudyError("a percentage has nothing to refer to; give a number", where)
        return of / 100.0
    if KNOWN[name] != "bytes":
        raise StudyError(f"counts {KNOWN[name]} and takes no unit, got {unit!r}", where)
    if unit not in BYTES:
        raise StudyError(unknown("unit", unit, BYTES), where)
    return float(BYTES[unit])
