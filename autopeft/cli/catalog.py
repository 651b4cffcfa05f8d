"""What `list` shows: names with one line each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from autopeft.core.catalog import names, read
from autopeft.core.errors import StudyError, unknown
from autopeft.core.methods import DECLARATIONS
from autopeft.core.published import PUBLISHED, Published

Lines = list[tuple[str, str]]


def _documents(folder: str) -> Lines:
    return [(name, str(read(folder, name)[0].get("description", ""))) for name in names(folder)]


def _methods() -> Lines:
    own = _each(DECLARATIONS, lambda kind: f"{_first_line(kind)} {', '.join(kind.options())}")
    return own + [(each.name, _published(each)) for each in PUBLISHED]


def _each(registry: Mapping[str, Any], described: Callable[[Any], str]) -> Lines:
    """Every entry; what a package names and cannot be loaded says why."""

    def line(name: str) -> str:
        try:
            return described(registry[name])
        except StudyError as error:
            return str(error)

    return [(name, line(name)) for name in registry]


def _published(each: Published) -> str:
    remark = f"; {each.remark}" if each.remark else ""
    return f"{each.said} ({each.paper}{remark})"


def _samplers() -> Lines:
    from autopeft.search.sampler import SAMPLERS

    return _each(SAMPLERS, _first_line)


def _proposers() -> Lines:
    from autopeft.oneshot.registry import PROPOSERS

    return _each(PROPOSERS, _first_line)


def _tasks() -> Lines:
    from autopeft.task.registry import TASKS

    return _each(TASKS, _first_line)


def _first_line(documented: object) -> str:
    return (documented.__doc__ or "").partition("\n")[0]


_KINDS: dict[str, Callable[[], Lines]] = {
    "spaces": lambda: _documents("search_spaces"),
    "objectives": lambda: _documents("objectives"),
    "studies": lambda: _documents("studies"),
    "methods": _methods,
    "samplers": _samplers,
    "proposers": _proposers,
    "tasks": _tasks,
}


def entries(kind: str) -> list[dict[str, str]]:
    """The names of a kind with a description each.

    Raises:
        StudyError: no such kind.
    """
    if kind not in _KINDS:
        raise StudyError(unknown("kind", kind, _KINDS), "list")
    return [{"name": name, "description": text} for name, text in _KINDS[kind]()]
