from __future__ import annotations

import pytest

from autopeft.core.config import PeftConfig, Placement
from autopeft.report import summary
from autopeft.report.summary import spans
from tests.report.trials import adapter, lora


def test_mixed_configuration_in_one_line() -> None:
    config = PeftConfig.of(
        [
            lora(8, range(3)),
            adapter(32, [3, 4, 5]),
            Placement.of("bitfit", [5], {}),
            Placement.of("prefix", [0, 2], {"length": 10}),
        ]
    )
    parts = ("adapter/ffn 32 @3-5", "bitfit @5", "lora[q,v] r8 @0-2", "prefix 10 @0,2")
    assert summary(config) == " · ".join(parts)


def test_empty_configuration() -> None:
    assert summary(PeftConfig()) == "head only"


@pytest.mark.parametrize(
    ("placement", "text"),
    [
        (lora(4, [0], lora_alpha=4.0), "lora[q,v] r4 α4 @0"),
        (lora(4, [0], lora_alpha=8.0), "lora[q,v] r4 @0"),
        (lora(4, [0], lora_dropout=0.1), "lora[q,v] r4 drop 0.1 @0"),
        (adapter(8, [1], form="parallel", scale=4.0), "parallel adapter/ffn 8 ×4 @1"),
        (adapter(8, [1], at="both", activation="gelu"), "adapter/both 8 gelu @1"),
        (adapter(8, [1], bias=False), "adapter/ffn 8 no bias @1"),
        (Placement.of("ia3", [0, 1], {"targets": ("k", "v")}), "ia3 targets=k,v @0-1"),
    ],
)
def test_what_differs_from_the_default_is_said(placement: Placement, text: str) -> None:
    assert summary(PeftConfig.of([placement])) == text


@pytest.mark.parametrize(
    ("layers", "text"), [([], ""), ([3], "3"), ([0, 1], "0-1"), ([0, 2, 3, 4, 9], "0,2-4,9")]
)
def test_runs_of_layers(layers: list[int], text: str) -> None:
    assert spans(layers) == text
