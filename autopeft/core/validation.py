"""Documents checked against a pydantic model, with errors in the house's form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from autopeft.core.errors import AutoPeftError, StudyError, unknown

Model = TypeVar("Model", bound=BaseModel)


def validated(
    model: type[Model],
    document: Any,
    where: str = "",
    error: type[AutoPeftError] = StudyError,
) -> Model:
    """The document as a value of `model`.

    Args:
        model: forbids extra keys; its validators may raise ValueError with a whole sentence.
        document: a mapping.
        where: the key that holds the document, if any.
        error: the class to raise.

    Raises:
        AutoPeftError: the first key that is unknown, missing or of another kind.
    """
    if not isinstance(document, Mapping):
        raise error(f"expected a mapping, got {document!r}", where)
    try:
        return model(**document)
    except ValidationError as failure:
        raise _first(model, failure, where, error) from None


def _first(
    model: type[BaseModel], failure: ValidationError, where: str, error: type[AutoPeftError]
) -> AutoPeftError:
    found = failure.errors()[0]
    path = [where] if where else []
    inner = [str(part) for part in found["loc"]]
    if found["type"] == "extra_forbidden":
        known = _fields(model, inner[:-1])
        return error(unknown("key", inner[-1], known), ".".join(path + inner[:-1]))
    place = ".".join(path + inner)
    if found["type"] == "missing":
        return error("is missing", place)
    if found["type"] == "value_error":
        return error(str(found["ctx"]["error"]), place)
    reason = found["msg"][0].lower() + found["msg"][1:]
    return error(f"{reason}, got {found['input']!r}", place)


def _fields(model: type[BaseModel], path: list[str]) -> list[str]:
    """The keys that the model has at a path of fields."""
    for key in path:
        inner = model.model_fields[key].annotation if key in model.model_fields else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return []
        model = inner
    return list(model.model_fields)
