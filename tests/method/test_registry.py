from __future__ import annotations

import pytest

from autopeft.core.config import PeftConfig, Placement
from autopeft.core.errors import AttachError
from autopeft.method import METHODS, attach
from autopeft.method.registry import build
from tests.backbones import tiny


@pytest.mark.parametrize(
    ("method", "changes", "message"),
    [
        ("lora", {"r": "eight"}, "lora: r: must be a positive integer, got 'eight'"),
        ("lora", {"r": 0}, "lora: r: must be a positive integer, got 0"),
        ("lora", {"r": True}, "lora: r: must be a positive integer, got True"),
        ("lora", {"targets": ("q", "vv")}, r"targets: unknown targets 'vv'.*did you mean 'v'"),
        ("lora", {"targets": "q"}, "targets: must be a tuple of site names, got 'q'"),
        ("lora", {"targets": ()}, r"targets: must be a tuple of site names, got \(\)"),
        ("lora", {"lora_dropout": 1.0}, r"lora_dropout: must be a number in \[0, 1\), got 1.0"),
        ("lora", {"lora_alpha": "x"}, "lora_alpha: must be a number"),
        ("lora", {"lora_alpha": float("nan")}, "lora_alpha: must be a number"),
        ("lora", {"rank": 4}, "lora: unknown option 'rank'; known: lora_alpha, lora_dropout"),
        ("adapter", {"form": "serial"}, "form: unknown form 'serial'.*did you mean 'sequential'"),
        ("adapter", {"at": "mlp"}, "at: unknown at 'mlp'"),
        ("adapter", {"size": -1}, "size: must be a positive integer, got -1"),
        ("adapter", {"activation": "tanh"}, "unknown activation 'tanh'; known: gelu, relu"),
        ("adapter", {"bias": 1}, "bias: must be true or false, got 1"),
        ("adapter", {"scale": -2}, "scale: must be a number"),
        ("prefix", {"length": 2.0}, "prefix: length: must be a positive integer, got 2.0"),
        ("bitfit", {"size": 1}, "bitfit: unknown option 'size'; known: none"),
    ],
)
def test_bad_options_are_attach_errors(method: str, changes, message: str) -> None:
    placement = Placement.of(method, [0], {**METHODS[method].example, **changes})
    with pytest.raises(AttachError, match=message):
        build(placement)


@pytest.mark.parametrize("method", sorted(METHODS))
def test_options_arrive_complete(method: str) -> None:
    example = METHODS[method].example
    build(Placement.of(method, [0], example))
    for option in example:
        partial = {k: v for k, v in example.items() if k != option}
        with pytest.raises(AttachError, match=f"option '{option}' is missing"):
            build(Placement.of(method, [0], partial))


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
