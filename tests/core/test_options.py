"""Every kind of option takes what it should, and says in one short line what else it expected."""

from __future__ import annotations

import math
from typing import Any

import pytest

from autopeft.core.errors import AutoPeftError
from autopeft.core.options import MAX_SIZE, SITES, Flag, Number, OneOf, Option, Sites, Size

FORM = OneOf("a", ("sequential", "parallel"))
HUGE = 10**400
SHARE = Number(0.0, low=0, below=1)
SCALE = Number(None, above=0, null="2r")


@pytest.mark.parametrize(
    ("option", "value", "canonical"),
    [
        (Size(), 0, 0),
        (Size(), MAX_SIZE, MAX_SIZE),
        (Size(), "fill", "fill"),
        (SHARE, 0, 0.0),
        (SCALE, 3, 3.0),
        (SCALE, None, None),
        (FORM, "parallel", "parallel"),
        (Flag(True), False, False),
        (Sites(("q",)), ("v", "self.o", "q", "v"), ("q", "v", "self.o")),
        (Sites(("q",)), SITES[::-1], SITES),
    ],
)
def test_equal_values_have_one_form(option: Option, value: Any, canonical: Any) -> None:
    checked = option.check(value)
    assert (checked, type(checked)) == (canonical, type(canonical))


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        *((Size(), value, "must be a positive integer up to 1000000, 0 (absent) or fill, got")
          for value in (-1, 2.0, True, None, "eight", MAX_SIZE + 1, 10**30, HUGE, ("q",))),
        *((SHARE, value, "must be a finite number from 0 below 1, got")
          for value in (-0.1, 1, math.nan, math.inf, HUGE, True, None, "x", (1,))),
        *((SCALE, value, "must be a finite number above 0, or null for 2r, got")
          for value in (0, -1, math.inf, HUGE, "x")),
        (FORM, "serial", "unknown value 'serial'; known: parallel, sequential (did you mean"),
        (FORM, 3, "must be one of sequential, parallel, got 3"),
        (FORM, ("parallel",), "must be one of sequential, parallel, got ['parallel']"),
        (Flag(True), 1, "must be true or false, got 1"),
        (Sites(("q",)), "q", "must be a list of sites, got 'q'"),
        (Sites(("q",)), (), "must be a list of sites, got []"),
        (Sites(("q",)), ("q", 3), "must be a list of sites, got ['q', 3]"),
        (Sites(("q",)), ("q", "vv"), "unknown site 'vv'"),
    ],
)  # fmt: skip
def test_anything_else_is_refused_in_a_short_line(option: Option, value: Any, says: str) -> None:
    for check in (option.check, option.check_closed):
        with pytest.raises(AutoPeftError) as caught:
            check(value)
        message = str(caught.value)
        assert says in message or (check == option.check_closed and "must be a positive" in message)
        assert len(message) < 250


@pytest.mark.parametrize("value", [0, "fill"])
def test_a_configuration_has_sizes(value: Any) -> None:
    with pytest.raises(AutoPeftError, match="must be a positive integer up to 1000000, got"):
        Size().check_closed(value)


def test_integers_that_python_does_not_print_are_refused() -> None:
    with pytest.raises(AutoPeftError, match="above 0, or null for 2r, got an integer of thousands"):
        SCALE.check(10**5000)
