"""What is known of a configuration before it is trained, by the name that an objective gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from autopeft.core.config import PeftConfig
from autopeft.core.registry import Registry


@dataclass(frozen=True)
class Known:
    """How a known objective is computed.

    Attributes:
        value: the value of a configuration in the user's unit; the same for the same one.
        slow: whether a value takes long enough (some 10 ms) to compute only a few.
        estimate: of a slow one, nearly its value in little time; None where nothing tells it.
    """

    value: Callable[[PeftConfig], float]
    slow: bool = False
    estimate: Callable[[PeftConfig], float] | None = None


@dataclass(frozen=True)
class Quantity:
    """What may be an objective, or have a limit, without training.

    Attributes:
        unit: of its values.
        known: of a package's own quantity, how it is computed for a `Setting` of
            `autopeft.memory.quantities`.
    """

    unit: str
    known: Callable[[Any], Known] | None = None


KNOWN: Registry[Quantity] = Registry(
    {
        "trainable_params": Quantity("parameters"),
        "stored_params": Quantity("parameters"),
        "peak_memory": Quantity("bytes"),
        "training_flops": Quantity("operations"),
    },
    "autopeft.objectives",
    lambda entry: isinstance(entry, Quantity) and entry.known is not None,
)
"""All of them by name."""
