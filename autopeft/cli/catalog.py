"""What `list` shows: names with one line each."""

from __future__ import annotations

from collections.abc import Callable

from autopeft.core.catalog import names, read
from autopeft.core.errors import StudyError, unknown
from autopeft.core.methods import DECLARATIONS
from autopeft.core.published import PUBLISHED, Published

Lines = list[tuple[str, str]]


def _documents(folder: str) -> Lines:
    return [(name, str(read(folder, name)[0].get("description", ""))) for name in names(folder)]


def _methods() -> Lines:
    own = [
        (name, f"{_first_line(kind)} {', '.join(kind.options())}")
        for name, kind in DECLARATIONS.items()
    ]
    return own + [(each.name, _published(each)) for each in PUBLISHED]


def _published(each: Published) -> str:
    remark = f"; {each.remark}" if each.remark else ""
    return f"{each.said} ({each.paper}{remark})"


def _samplers() -> Lines:
    from autopeft.search.sampler import SAMPLERS

    return [(name, _first_line(make)) for name, make in SAMPLERS.items()]


def _tasks() -> Lines:
    from autopeft.task.registry import TASKS

    return [(name, _first_line(kind)) for name, kind in TASKS.items()]


def _first_line(documented: object) -> str:
    return (documented.__doc__ or "").partition("\n")[0]


_KINDS: dict[str, Callable[[], Lines]] = {
    "spaces": lambda: _documents("search_spaces"),
    "objectives": lambda: _documents("objectives"),
    "studies": lambda: _documents("studies"),
    "methods": _methods,
    "samplers": _samplers,
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
