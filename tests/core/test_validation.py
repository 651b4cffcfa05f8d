from typing import Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from autopeft.core.errors import SpaceError
from autopeft.core.validation import Section, validated


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    size: int = Field(default=1, ge=1)
    kind: Literal["round", "square"] = "round"


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    inner: Inner = Field(default_factory=Inner)
    epochs: float | list[float] = 1.0
    place: list[Any] = Field(default_factory=list)
    name: str

    @field_validator("name")
    @classmethod
    def _short(cls, name: str) -> str:
        if len(name) > 3:
            raise ValueError(f"is too long: {name!r}")
        return name


def test_a_right_document():
    found = validated(Outer, {"name": "a", "inner": {"size": 3}, "epochs": [1, 3]})
    assert (found.inner.size, found.epochs) == (3, [1.0, 3.0])


@pytest.mark.parametrize(
    ("document", "says"),
    [
        (7, "top: expected a mapping, got 7"),
        ({}, "top.name: is missing"),
        ({"nam": 1}, "top: unknown key 'nam'; known: epochs, inner, name, place (did you"),
        ({"name": "a", "inne": 1}, "top: unknown key 'inne'; known: epochs, inner, name, place"),
        ({"name": "a", "inner": {"siz": 1}}, "top.inner: unknown key 'siz'; known: kind, size"),
        ({"name": "a", 5: 1}, "top: unknown key '5'; known: epochs, inner, name, place"),
        ({"name": "a", "inner": {5: 1}}, "top.inner: unknown key '5'; known: kind, size"),
        ({"name": "a", "inner": 3}, "top.inner: expected a mapping, got 3"),
        ({"name": "a", "inner": {"size": 0}}, "top.inner.size: should be greater than or equal to"),
        ({"name": "a", "inner": {"size": "x"}}, "top.inner.size: should be a valid integer, got"),
        ({"name": "a", "inner": {"kind": "rund"}}, "top.inner.kind: unknown kind 'rund'; known: r"),
        ({"name": "a", "epochs": "x"}, "top.epochs: should be a valid number or a valid list"),
        ({"name": "a", "epochs": [1, "x"]}, "top.epochs: should be a valid number, got [1, 'x']"),
        ({"name": "long"}, "top.name: is too long: 'long'"),
    ],
)
def test_the_first_error_in_one_line(document, says):
    with pytest.raises(SpaceError) as caught:
        validated(Outer, document, "top", SpaceError)
    assert str(caught.value).startswith(says)
    assert "\n" not in str(caught.value)


class Numbers(Section):
    size: float | list[float] = 1.0


@pytest.mark.parametrize("value", [float("inf"), float("nan"), [1.0, -float("inf")]])
def test_a_section_has_finite_numbers(value):
    with pytest.raises(SpaceError, match=r"^here\.size: should be .*a finite number"):
        validated(Numbers, {"size": value}, "here", SpaceError)


def test_a_section_is_frozen_and_strict():
    with pytest.raises(ValidationError):
        Numbers().size = 2.0
    with pytest.raises(SpaceError, match="unknown key 'sizes'"):
        validated(Numbers, {"sizes": 1.0}, error=SpaceError)
    with pytest.raises(SpaceError, match="should be a valid number"):
        validated(Numbers, {"size": "1"}, error=SpaceError)


@pytest.mark.parametrize("document", [{"size": "x" * 10**6}, {"x" * 10**6: 1}, "x" * 10**6])
def test_large_values_make_short_errors(document):
    with pytest.raises(SpaceError) as caught:
        validated(Numbers, document, "here", SpaceError)
    assert len(str(caught.value)) < 250


def test_a_document_without_a_place():
    with pytest.raises(SpaceError, match=r"^name: is missing"):
        validated(Outer, {}, error=SpaceError)
