"""Amounts as people write them, `1%`, `300k`, `16GB`, and amounts and times as they read them."""

from __future__ import annotations

import math
import re

from autopeft.core.errors import AutoPeftError, shown
from autopeft.core.options import is_finite

_FACTORS = {
    "": 1,
    "B": 1,
    **{unit: 1000 ** (i + 1) for i, unit in enumerate("KMGT")},
    **{f"{unit}B": 1000 ** (i + 1) for i, unit in enumerate("KMGT")},
    **{f"{unit}IB": 1024 ** (i + 1) for i, unit in enumerate("KMGT")},
}
_PREFIXES = ("", "k", "M", "G", "T", "P")
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
    wrong = f"expected a positive amount such as 300000, 300k, 1% or 16GB, got {shown(value)}"
    if not isinstance(value, str) and not is_finite(value):
        raise AutoPeftError(wrong, where)
    match = _FORM.fullmatch(str(value).strip())
    unit = match[2].upper() if match else ""
    if not match or (unit != "%" and unit not in _FACTORS):
        raise AutoPeftError(wrong, where)
    if unit == "%" and of is None:
        raise AutoPeftError(f"per cents have no whole here, got {shown(value)}", where)
    number = float(match[1])
    amount = number / 100 * (of or 0.0) if unit == "%" else number * _FACTORS[unit]
    if not 0 < amount < math.inf:
        raise AutoPeftError(wrong, where)
    return amount


def prefixed(value: float, digits: int) -> tuple[str, str]:
    """A number below 1000 and the decimal prefix that goes with it: `1.61` and `G`.

    Args:
        value: finite; small and huge ones are below or above the range of prefixes.
        digits: significant digits of the number, at least 3.
    """
    rounded = float(f"{value:.{digits}g}")
    power = min(int(math.log10(abs(rounded)) // 3), len(_PREFIXES) - 1) if abs(rounded) >= 1 else 0
    return f"{value / 1000**power:.{digits}g}", _PREFIXES[power]


def duration(seconds: float) -> str:
    """A time as people say it."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return (
        f"{hours} h {minutes} min"
        if hours
        else f"{minutes} min {rest} s"
        if minutes
        else f"{rest} s"
    )
