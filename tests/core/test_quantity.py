import pytest

from autopeft.core.errors import AutoPeftError
from autopeft.core.quantity import parse_quantity


@pytest.mark.parametrize(
    ("value", "number"),
    [(300000, 3e5), ("300k", 3e5), ("16GB", 16e9), ("1 GiB", 2**30), ("1.5%", 3.0), ("2e3", 2e3)],
)
def test_amounts(value, number):
    assert parse_quantity(value, "limits.x", of=200) == number


@pytest.mark.parametrize(
    "value",
    [
        "lots",
        "-1",
        0,
        True,
        None,
        "16XB",
        "1%%",
        [1],
        float("inf"),
        "1e400",
        10**400,
        "1e308KB",
        "9" * 5000,
    ],
)
def test_what_is_no_amount(value):
    with pytest.raises(AutoPeftError, match=r"^limits.x: expected a positive amount such as"):
        parse_quantity(value, "limits.x", of=200)


def test_per_cents_of_nothing():
    with pytest.raises(AutoPeftError, match="have no whole here, got '1%'"):
        parse_quantity("1%", "limits.x")
