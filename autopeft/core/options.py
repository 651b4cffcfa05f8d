"""The kinds of options that a method can have: what each expects, accepts and makes of a value."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

from autopeft.core.errors import AutoPeftError, shown, unknown
from autopeft.core.shape import ATTENTION_ROLES, FFN_ROLES, ROLES

SITES = (*ATTENTION_ROLES, *FFN_ROLES, *(role for role in ROLES if "." in role))
"""Where a placement may sit, in canonical order; `q` is every query projection of a layer."""

MAX_SIZE = 1_000_000
REQUIRED: Any = object()


@dataclass(frozen=True)
class Option(ABC):
    """One option of a method.

    Attributes:
        default: the value where the option is left out; `REQUIRED` where it must be given.
        later: studies have recorded the method before it had the option, which a configuration
            tells only where it is not the default, so that theirs stay what they are.
    """

    default: Any = REQUIRED
    later: bool = field(default=False, kw_only=True)

    @property
    @abstractmethod
    def expects(self) -> str:
        """What a value is, as the object of "must be"."""

    @abstractmethod
    def accepts(self, value: Any) -> bool:
        """Whether a value is what the option `expects`."""

    def is_left_out(self, value: Any) -> bool:
        """Whether a configuration does not tell a value."""
        return self.later and value == self.default

    def canonical(self, value: Any) -> Any:
        """The one form of equal values."""
        return value

    def check(self, value: Any) -> Any:
        """A value as a space may state it, in canonical form.

        Raises:
            AutoPeftError: it is not what the option `expects`.
        """
        if not self.accepts(value):
            raise AutoPeftError(f"must be {self.expects}, got {shown(value)}")
        return self.canonical(value)

    def check_closed(self, value: Any) -> Any:
        """A value as a configuration has it, in canonical form.

        Raises:
            AutoPeftError: it is missing, not what the option `expects`, or still to be decided.
        """
        if value is REQUIRED:
            raise AutoPeftError(f"is missing: {self.expects}")
        return self.check(value)


def is_plain(value: Any) -> bool:
    """Whether a value is a text, a number, a truth value, null, or a list of such."""
    if isinstance(value, tuple):
        return all(map(is_plain, value))
    return value is None or isinstance(value, str | bool) or is_finite(value)


def option(kind: Option) -> Any:
    """The kind of an option where its value will stand."""
    return kind


@dataclass(frozen=True)
class Size(Option):
    """How big a placement is; a method has one at most.

    Attributes:
        fills: a budget may solve it.
    """

    fills: bool = True

    @property
    def expects(self) -> str:
        number = f"a positive integer up to {MAX_SIZE}"
        return f"{number}, 0 (absent) or fill" if self.fills else f"{number} or 0 (absent)"

    def accepts(self, value: Any) -> bool:
        if value == "fill":
            return self.fills
        return is_whole(value) and 0 <= value <= MAX_SIZE

    def check_closed(self, value: Any) -> Any:
        if value is not REQUIRED and not (is_whole(value) and 0 < value <= MAX_SIZE):
            raise AutoPeftError(f"must be a positive integer up to {MAX_SIZE}, got {shown(value)}")
        return super().check_closed(value)


@dataclass(frozen=True)
class Number(Option):
    """A finite number with bounds.

    Attributes:
        above: the number is greater.
        low: the number is this or greater.
        below: the number is smaller.
        null: what null stands for; empty where null is refused.
    """

    above: float = -math.inf
    low: float = -math.inf
    below: float = math.inf
    null: str = ""

    @property
    def expects(self) -> str:
        bounds = {"above": self.above, "from": self.low, "below": self.below}
        said = (f" {word} {bound:g}" for word, bound in bounds.items() if math.isfinite(bound))
        return f"a finite number{''.join(said)}" + (
            f", or null for {self.null}" if self.null else ""
        )

    def accepts(self, value: Any) -> bool:
        if value is None:
            return bool(self.null)
        return is_finite(value) and self.above < value < self.below and self.low <= value

    def canonical(self, value: Any) -> float | None:
        return None if value is None else float(value)


@dataclass(frozen=True)
class Whole(Option):
    """An integer with a lower bound.

    Attributes:
        null: what null stands for; empty where null is refused.
    """

    low: int = 0
    null: str = ""

    @property
    def expects(self) -> str:
        return f"an integer from {self.low}" + (f", or null for {self.null}" if self.null else "")

    def accepts(self, value: Any) -> bool:
        if value is None:
            return bool(self.null)
        return is_whole(value) and self.low <= value <= MAX_SIZE


@dataclass(frozen=True)
class OneOf(Option):
    """One of some names."""

    names: tuple[str, ...] = ()

    @property
    def expects(self) -> str:
        return f"one of {', '.join(self.names)}"

    def accepts(self, value: Any) -> bool:
        return value in self.names

    def check(self, value: Any) -> Any:
        if isinstance(value, str) and value not in self.names:
            raise AutoPeftError(unknown("value", value, self.names))
        return super().check(value)


@dataclass(frozen=True)
class Name(Option):
    """A name that somebody else knows."""

    expects = "a name"

    def accepts(self, value: Any) -> bool:
        return isinstance(value, str) and bool(value) and value.isprintable()


@dataclass(frozen=True)
class Flag(Option):
    """True or false."""

    expects = "true or false"

    def accepts(self, value: Any) -> bool:
        return isinstance(value, bool)


@dataclass(frozen=True)
class Sites(Option):
    """Some of `SITES`, at least one.

    Attributes:
        null: what null stands for; empty where null is refused.
    """

    null: str = ""

    @property
    def expects(self) -> str:
        return "a list of sites" + (f", or null for {self.null}" if self.null else "")

    def accepts(self, value: Any) -> bool:
        if value is None:
            return bool(self.null)
        return isinstance(value, tuple) and bool(value) and all(isinstance(s, str) for s in value)

    def check(self, value: Any) -> Any:
        for site in value if value is not None and self.accepts(value) else ():
            if site not in SITES:
                raise AutoPeftError(unknown("site", site, SITES))
        return super().check(value)

    def canonical(self, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        return None if value is None else tuple(sorted(set(value), key=SITES.index))


def is_whole(value: Any) -> bool:
    """Whether a value is an integer and no truth value."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_finite(value: Any) -> bool:
    """Whether a value is a number that a float can hold and no truth value."""
    try:
        return not isinstance(value, bool) and math.isfinite(value)
    except (TypeError, OverflowError):
        return False
