from __future__ import annotations

import pytest

from autopeft.core.errors import StudyError
from autopeft.objective.limit import parse_limit


@pytest.mark.parametrize(
    ("name", "value", "limit"),
    [
        ("trainable_params", 300000, 300000),
        ("trainable_params", "3e5", 300000),
        ("trainable_params", "300k", 300000),
        ("trainable_params", "1%", 227000),
        ("stored_params", "0.5 %", 113500),
        ("peak_memory", "16GB", 16e9),
        ("peak_memory", "1.5 GiB", 1.5 * 2**30),
        ("peak_memory", "10kB", 1e4),
        ("peak_memory", "2KiB", 2048),
        ("peak_memory", "3MB", 3e6),
        ("peak_memory", "3MiB", 3 * 2**20),
        ("peak_memory", 5e9, 5e9),
    ],
)
def test_limits_in_words(name: str, value: str | float, limit: float) -> None:
    assert parse_limit(name, value, of=22_700_000) == pytest.approx(limit)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("trainable_param", 1, "limits: unknown limit 'trainable_param'.*'trainable_params'"),
        ("trainable_params", "16GB", "limits.trainable_params: counts parameters, not bytes"),
        ("trainable_params", "1%", "limits.trainable_params: per cents have no whole"),
        ("peak_memory", "16Gbit", "limits.peak_memory: .* got '16Gbit'"),
        ("peak_memory", "-1GB", "expected a positive amount"),
        ("peak_memory", float("inf"), "expected a positive amount"),
        ("peak_memory", "much", "expected a positive amount"),
        ("peak_memory", True, "expected a positive amount"),
    ],
)
def test_bad_limits_are_named(name: str, value: str | float, message: str) -> None:
    with pytest.raises(StudyError, match=message):
        parse_limit(name, value)


def test_bytes_have_no_whole() -> None:
    with pytest.raises(StudyError, match="per cents have no whole"):
        parse_limit("peak_memory", "1%", of=100)
