"""Functions of the user's own, by name."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from autopeft.core.errors import StudyError, unknown
from autopeft.core.validation import Section

PLACE = r"^[^:]+:[^:]+$"
"""Of a function: `module:name` or `file.py:name`."""


class OwnMetric(Section):
    """A number that a function of the user's own computes.

    Attributes:
        function: takes what is true and what is predicted of all rows, in their order and in the
            terms of the data: names of classes, numbers, lists of tags, texts of answers.
        goal: whether more or less of it is better.
    """

    function: str = Field(pattern=PLACE)
    goal: Literal["maximize", "minimize"] = "maximize"

    def __call__(self, wanted: Any, given: Any) -> float:
        """What the function says."""
        return float(self.found()(wanted, given))

    def found(self) -> Callable[..., Any]:
        """The function; raises StudyError where there is none."""
        return function_at(self.function, "task.own_metrics")


def function_at(
    place: str, where: str, fits: Callable[[Any], bool] = callable, kind: str = "function"
) -> Callable[..., Any]:
    """The function `module:name` or `file.py:name`.

    Args:
        place: of it; a module may lie in the folder in which the study is run.
        where: the key to name in errors.
        fits: whether something is such a function.
        kind: what to call it in errors.

    Raises:
        StudyError: there is none.
    """
    home, _, name = place.partition(":")
    try:
        module = _from_file(Path(home)) if home.endswith(".py") else _imported(home)
    except Exception as error:  # what the module raises at its import
        reason = f"{home!r} cannot be imported: {type(error).__name__}: {error}"
        raise StudyError(reason, where) from error
    function = getattr(module, name, None)
    if not fits(function):
        own = [n for n, f in vars(module).items() if fits(f) and not n.startswith("_")]
        raise StudyError(unknown(kind, name, own), where)
    return function  # type: ignore[return-value]


def _imported(name: str) -> Any:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    return importlib.import_module(name)


def _from_file(path: Path) -> Any:
    """What a file defines, by its full path, so that it is run once a process."""
    path = path.resolve()
    name = f"autopeft_own_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is None or spec.loader is None or not path.is_file():
            raise FileNotFoundError(str(path))
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
    return sys.modules[name]
