"""How big a placement is."""

from __future__ import annotations

from autopeft.core.config import Placement
from autopeft.core.methods import DECLARATIONS


def size_option(method: str) -> str | None:
    """The option that says how big a placement of a method is; None where there is none."""
    return DECLARATIONS[method].size_option() if method in DECLARATIONS else None


def size_of(placement: Placement) -> float:
    """The size of a placement, 1 where its method has none."""
    size = size_option(placement.method)
    return 1.0 if size is None else float(placement[size])
