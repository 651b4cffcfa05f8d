from __future__ import annotations

import pytest

from autopeft.core.config import PeftConfig, Placement
from autopeft.core.errors import AttachError
from autopeft.core.methods import Lora
from autopeft.method.attach import attach
from autopeft.method.registry import METHODS, build
from tests.backbones import tiny


@pytest.mark.parametrize(
    ("method", "changes", "message"),
    [
        ("lora", {"r": "fill"}, "lora: r: must be a positive integer up to 1000000, got 'fill'"),
        ("lora", {"targets": ("q", "vv")}, r"lora: targets: unknown site 'vv'.*did you mean 'v'"),
        ("lora", {"lora_alpha": 0}, "lora: lora_alpha: must be a finite number above 0"),
        ("lora", {"rank": 4}, "lora: unknown option 'rank'; known: freeze_a, init_lora"),
        ("adapter", {"scale": 0}, "adapter: scale: must be a finite number above 0, got 0"),
        ("bitfit", {"size": 1}, "bitfit: unknown option 'size'; known: learning_rate"),
    ],
)
def test_what_the_declaration_refuses_is_an_attach_error(method, changes, message) -> None:
    placement = Placement.of(method, [0], {**METHODS[method].example, **changes})
    with pytest.raises(AttachError, match=message):
        build(placement)


def test_options_left_out_have_their_defaults() -> None:
    options = build(Placement.of("lora", [0], {"r": 3})).options
    assert options == Lora.closed({"targets": ("q", "v"), "r": 3, "lora_alpha": 6.0})
    with pytest.raises(AttachError, match="adapter: size: is missing: a positive integer"):
        build(Placement.of("adapter", [0], {}))


def test_unknown_methods_name_the_nearest() -> None:
    with pytest.raises(AttachError, match=r"unknown method 'lorra'.*did you mean 'lora'"):
        attach(tiny("bert"), PeftConfig.of([Placement.of("lorra", [0], {})]))


def test_a_placement_without_a_site_says_what_is_missing() -> None:
    gate = {**METHODS["lora"].example, "targets": ("gate",)}
    with pytest.raises(AttachError, match=r"lora on layers 0, 1: none .* has a linear named gate"):
        attach(tiny("bert"), PeftConfig.of([Placement.of("lora", [0, 1], gate)]))
    with pytest.raises(AttachError, match="bitfit on layers 1: none of these layers has a bias"):
        attach(tiny("llama"), PeftConfig.of([Placement.of("bitfit", [1], {})]))


def test_targets_that_one_layer_lacks_are_skipped() -> None:
    options = {**METHODS["lora"].example, "targets": ("cross.q", "gate", "down"), "r": 2}
    on = attach(tiny("t5"), PeftConfig.of([Placement.of("lora", [1, 2], options)]))
    assert sorted(on.trainable()) == [
        "layers.1.lora.down.A",
        "layers.1.lora.down.B",
        "layers.2.lora.cross.q.A",
        "layers.2.lora.cross.q.B",
        "layers.2.lora.down.A",
        "layers.2.lora.down.B",
    ]
