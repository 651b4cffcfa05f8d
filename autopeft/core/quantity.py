"""Amounts as people write them: `1%`, `300k`, `16GB`, `300000`."""

from __future__ import annotations

import re

from autopeft.core.errors import AutoPeftError

_FACTORS = {
    "": 1,
    "B": 1,
    **{unit: 1000 ** (i + 1) for i, unit in enumerate("KMGT")},
    **{f"{unit}B": 1000 ** (i + 1) for i, unit in enumerate("KMGT")},
    **{f"{unit}IB": 1024 ** (i + 1) for i, unit in enumerate("KMGT")},
}
_FORM = re.compile(r"(\d+(?:\.\d*)?(?:[eE][-+]?\d+)?)\s*([A-Za-z]*|%)")


def parse_quantity(value: object, where: str, of: float | None = None) -> float:
    """The amount as a number; decimal units are powers of 1000, binary ones of 1024.

    Args:
        value: a positive number, or a text with a unit or a per cent sign.
        where: the key, for the error.
        of: the whole that per cents refer to.

    Raises:
        AutoPeftError: not of that form, not positive, or per cents of nothing.
    """
    expected = "expected a positive amount such as 300000, 300k, 1% or 16GB"
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise AutoPeftError(f"{expected}, got {value!r}", where)
    match = _FORM.fullmatch(str(value).strip())
    if not match or float(match[1]) <= 0:
        raise AutoPeftError(f"{expected}, got {value!r}", where)
    if match[2] == "%":
        if of is None:
            raise AutoPeftError(f"per cents have no whole here, got {value!r}", where)
        return float(match[1]) / 100 * of
    unit = match[2].upper()
    if unit not in _FACTORS:
        raise AutoPeftError(f"{expected}, got the unit {match[2]!r}", where)
    return float(match[1]) * _FACTORS[unit]
