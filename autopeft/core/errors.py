"""Errors and warnings a user can meet, each saying where, what was expected and what came."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

_SECRET = re.compile(r"(?<=:)(?!/)\S+(?=@)|(?<=password=)[^\s&;'\"]+", re.IGNORECASE)


def redacted(text: str) -> str:
    """A text in which the passwords of URLs are three stars."""
    return _SECRET.sub("***", text)


class AutoPeftError(Exception):
    """Bad input, found at a boundary.

    Args:
        reason: what was expected and what came.
        where: file and key, innermost first; callers add the outer part with `inside`.
    """

    def __init__(self, reason: str, where: str = "") -> None:
        self.reason, self.where = redacted(reason), redacted(where)
        super().__init__(f"{self.where}: {self.reason}" if where else self.reason)

    def inside(self, outer: str) -> AutoPeftError:
        """The same error seen from an outer place, such as the file that holds the key."""
        return type(self)(self.reason, ": ".join(place for place in (outer, self.where) if place))


class SpaceError(AutoPeftError):
    """A search space or configuration that does not mean anything."""


class StudyError(AutoPeftError):
    """A study, its objectives, its data or its record that cannot be used."""


class AttachError(AutoPeftError):
    """A configuration that does not fit the backbone."""


class DivergenceError(RuntimeError):
    """Numbers of a training are not finite any more."""


class ExportError(AutoPeftError):
    """A trial that cannot be written in the asked form."""


class AutoPeftWarning(UserWarning):
    """A search that goes on, though not as it was asked to."""


@contextmanager
def inside(*places: str) -> Iterator[None]:
    """Errors of the block name these places, the outermost first."""
    try:
        yield
    except AutoPeftError as error:
        raise error.inside(": ".join(filter(None, places))) from None


@contextmanager
def raised_as(kind: type[AutoPeftError]) -> Iterator[None]:
    """Errors of the block are of this kind; they say the same."""
    try:
        yield
    except AutoPeftError as error:
        raise kind(error.reason, error.where) from None


def unknown(kind: str, name: object, known: Iterable[str]) -> str:
    """The sentence for a name that does not exist: the known ones and the nearest."""
    names, said = sorted(known), str(name)
    nearest = difflib.get_close_matches(said[:80], names, n=1, cutoff=0.4)
    hint = f" (did you mean {nearest[0]!r}?)" if nearest else ""
    return f"unknown {kind} {shown(said)}; known: {', '.join(names) or 'none'}{hint}"


def shown(value: object) -> str:
    """A value as an error names it, cut where it is long."""
    try:
        text = str(list(value)) if isinstance(value, tuple) else repr(value)
    except ValueError:
        text = "an integer of thousands of digits"
    return text if len(text) <= 100 else f"{text[:80]}… ({len(text)} characters)"
