"""Documents checked against a pydantic model or dataclass, with errors in the house's form."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from autopeft.core.errors import AutoPeftError, StudyError, shown, unknown

Model = TypeVar("Model")

_UNKNOWN_KEY = {"extra_forbidden", "invalid_key", "unexpected_keyword_argument"}


STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
"""Known keys and finite numbers, none of which is converted."""


class Section(BaseModel):
    """A mapping of a document, as strict as `STRICT`."""

    model_config = ConfigDict(frozen=True, **STRICT)


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
        raise error(f"expected a mapping, got {shown(document)}", where)
    for key in document:
        if not isinstance(key, str):
            raise error(unknown("key", key, _fields(model, [])), where)
    try:
        return model(**document)
    except ValidationError as failure:
        raise _first(model, failure, where, error) from None


def _first(
    model: type, failure: ValidationError, where: str, error: type[AutoPeftError]
) -> AutoPeftError:
    errors = sorted(failure.errors(), key=lambda each: each["type"] not in _UNKNOWN_KEY)
    first, keys = errors[0], _keys(model, errors[0])
    if first["type"] in _UNKNOWN_KEY:
        reason, keys = unknown("key", keys[-1], _fields(model, keys[:-1])), keys[:-1]
    elif first["type"] == "missing":
        reason = "is missing"
    elif first["type"] == "value_error":
        reason = str(first["ctx"]["error"])
    elif first["type"] == "literal_error":
        names = re.findall(r"'([^']*)'", first["ctx"]["expected"])
        reason = unknown(keys[-1], first["input"], names)
    elif first["type"] in {"model_type", "dict_type"}:
        reason = f"expected a mapping, got {shown(first['input'])}"
    else:
        alike = [e["msg"] for e in errors if _keys(model, e) == keys]
        reasons = (re.sub(r"^\w+ should ", "should ", message) for message in alike)
        said = " or ".join(dict.fromkeys(reasons)).replace(" or should be ", " or ")
        reason = f"{said}, got {shown(first['input'])}"
    return error(reason, ".".join(filter(None, (where, *keys))))


def _keys(model: type, detail: Any) -> list[str]:
    """The keys that lead to an error, without the branches of a union and the items of a list."""
    keys: list[str] = []
    for part in detail["loc"]:
        keys.append(str(part))
        if part not in _fields(model, keys[:-1]):
            return keys if detail["type"] in _UNKNOWN_KEY else keys[:-1]
    return keys


def _fields(model: type, path: list[str]) -> list[str]:
    """The keys that the model has at a path of fields."""
    fields = model.__pydantic_fields__  # type: ignore[attr-defined]
    for key in path:
        inner = fields[key].annotation if key in fields else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return []
        fields = inner.model_fields
    return list(fields)
