import pytest

from autopeft.core.errors import AutoPeftError, SpaceError, StudyError, inside, raised_as, unknown


def test_places_stand_from_the_outermost_to_the_key():
    with (
        pytest.raises(SpaceError) as caught,
        inside("study.yaml"),
        inside("space", ""),
        inside(""),
    ):
        raise SpaceError("must be a number", "place[0].r")
    assert str(caught.value) == "study.yaml: space: place[0].r: must be a number"
    assert caught.value.reason == "must be a number"


def test_other_errors_pass_as_they_are():
    with pytest.raises(KeyError), inside("study.yaml"):
        raise KeyError("x")


def test_an_error_of_another_kind_says_the_same():
    expected = pytest.raises(StudyError, match=r"^file: key: is missing$")
    with expected as caught, inside("file"), raised_as(StudyError):
        raise SpaceError("is missing", "key")
    assert type(caught.value) is StudyError


def test_without_a_place():
    assert str(AutoPeftError("is missing").inside("")) == "is missing"


def test_the_nearest_name():
    known = ("lora", "adapter")
    assert unknown("method", "lorra", known) == (
        "unknown method 'lorra'; known: adapter, lora (did you mean 'lora'?)"
    )
    assert unknown("method", "xyz", known) == "unknown method 'xyz'; known: adapter, lora"
    assert unknown("method", 7, ()) == "unknown method '7'; known: none"
