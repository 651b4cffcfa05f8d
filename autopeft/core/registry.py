"""What comes with autopeft by name, and beside it what installed packages add."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar

from autopeft.core.errors import StudyError

Entry = TypeVar("Entry")


class Registry(Mapping[str, Entry], Generic[Entry]):
    """Entries by name; those of packages are entry points, loaded when they are asked for.

    A name of autopeft's own stays its own.

    Args:
        own: what comes with autopeft.
        group: of entry points.
        fits: whether something that a package names is such an entry.
    """

    def __init__(self, own: Mapping[str, Entry], group: str, fits: Callable[[Any], object]) -> None:
        self.own, self._group, self._fits = dict(own), group, fits
        self._at_hand: dict[str, Entry] = {}

    def __getitem__(self, name: str) -> Entry:
        if name in self.own:
            return self.own[name]
        return self._at_hand[name] if name in self._at_hand else self._load(name)

    def __contains__(self, name: object) -> bool:
        return name in self.own or name in self.added

    def __iter__(self) -> Iterator[str]:
        return iter([*self.own, *self.added])

    def __len__(self) -> int:
        return len(self.own) + len(self.added)

    @cached_property
    def added(self) -> Mapping[str, EntryPoint]:
        """The entry points of installed packages by name."""
        points = sorted(entry_points(group=self._group), key=lambda point: point.name)
        return {point.name: point for point in points if point.name not in self.own}

    def _load(self, name: str) -> Entry:
        """An entry of a package, from now on at hand.

        Raises:
            KeyError: there is none.
            StudyError: it cannot be loaded, or is something else.
        """
        point = self.added[name]
        entry = loaded(point)
        if not self._fits(entry):
            raise StudyError(f"{point.value} is none of the {self._group}", name)
        self._at_hand[name] = entry
        return entry


def loaded(point: EntryPoint) -> Any:
    """What an entry point names.

    Raises:
        StudyError: it cannot be imported.
    """
    try:
        return point.load()
    except Exception as error:  # whatever the package does where it is imported
        reason = f"{type(error).__name__}: {error}"
        raise StudyError(f"{point.value} cannot be loaded: {reason}", point.name) from error
