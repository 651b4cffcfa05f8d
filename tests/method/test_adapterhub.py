"""Methods of AdapterHub's library: the same outputs and counts.

The values are those of `adapters` 1.3.0, as `benchmarks/oracles/adapterhub.py` writes them. Where
the two differ by default, the configurations there are those that mean the same:

- SeqBn (Pfeiffer) reads the normed sum of a sublayer and its residual (`original_ln_before`), an
  adapter here what leaves the sublayer.
- A parallel adapter reads the residual, which is the input of the sublayer only where norms stand
  after it, as in BERT and BART.
- (IA)³ multiplies before the activation of a feed-forward network. Positive factors commute with
  ReLU, so that T5 is as in the paper.
- In Llama `intermediate_lora` is the last linear of the network, `output_lora` the one before.
- DoRA multiplies the bias, too, and measures rows without the factor alpha / r.
- VeRA trains matrices, of which the paper has the diagonals, and multiplies by alpha / r.
- A gate averages over padding, too, here over the text; in causal models, where it would tell of
  later tokens, there is none here.
- A prefix moves relative positions of T5. Through a network it has one for each kind of attention,
  where here one network serves all.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from autopeft.core.config import PeftConfig, Placement
from autopeft.core.errors import AttachError
from autopeft.method.attach import Attached, attach
from benchmarks.oracles import formula
from tests.adapterhub import fill

GOLDEN = json.loads((Path(__file__).parent / "golden/adapterhub.json").read_text("utf-8"))
Placed = tuple[str, Mapping[str, Any], tuple[int, ...]]


def adapter(size: int, at: str = "both", layers: tuple[int, ...] = (), **options: Any) -> Placed:
    return "adapter", {"at": at, "size": size, **options}, layers


def parallel(size: int, at: str = "ffn", scale: float = 4.0) -> Placed:
    return adapter(size, at, form="parallel", scale=scale)


def lora(*targets: str, layers: tuple[int, ...] = ()) -> Placed:
    return "lora", {"targets": targets, "r": 3, "lora_alpha": 6.0}, layers


def dora(*targets: str, alpha: float = 3.0) -> Placed:
    return "dora", {"targets": targets, "r": 3, "lora_alpha": alpha}, ()


def ia3(*targets: str) -> Placed:
    """All at their outputs."""
    return "ia3", {"targets": targets, "feedforward_modules": ("gate",)}, ()


def prefix(layers: tuple[int, ...] = (), **options: Any) -> Placed:
    return "prefix", {"length": 3, **options}, layers


def compacter(at: str, n: int = 4, rank: int = 1) -> Placed:
    return "compacter", {"at": at, "size": 4, "phm_dim": n, "phm_rank": rank}, ()


NETWORK = prefix(prefix_projection=True, encoder_hidden_size=6)
SAME: Mapping[str, list[Placed]] = {
    "bert houlsby": [adapter(4)],
    "bert after ffn": [adapter(4, "ffn", activation="gelu")],
    "bert after attention": [adapter(2, "attention", activation="gelu")],
    "bert sizes by layer": [adapter(8, "ffn", (0,)), adapter(2, "ffn", (1,))],
    "bert parallel": [parallel(8)],
    "bert parallel to both": [parallel(4, "both", 2.0)],
    "bert lora": [lora("q", "v")],
    "bert lora everywhere": [lora("q", "k", "v", "up", "down", layers=(1,))],
    "bert ia3": [ia3("k", "v", "up")],
    "bert ia3 everywhere": [ia3("q", "k", "v", "up", "down")],
    "bert prefix": [prefix()],
    "bert prefix above": [prefix((1,))],
    "bert prefix through a network": [NETWORK],
    "bert compacter": [compacter("both")],
    "bert compacter++": [compacter("ffn")],
    "bert compacter of rank 2": [compacter("both", 2, 2)],
    "bert mam": [NETWORK, parallel(8)],
    "bert mix": [lora("q", "v", "up", "down"), adapter(4), prefix()],
    "bert vera": [("vera", {"targets": ("q", "v"), "r": 3}, ())],
    "roberta mix": [lora("q", "k", "up", "down"), adapter(4), prefix()],
    "gpt2 houlsby": [adapter(4)],
    "gpt2 lora": [lora("q", "v")],
    "gpt2 lora everywhere": [lora("q", "k", "v", "up", "down")],
    "gpt2 ia3": [ia3("k", "v", "up")],
    "gpt2 prefix": [prefix()],
    "llama houlsby": [adapter(4)],
    "llama lora": [lora("q", "v")],
    "llama lora everywhere": [lora("q", "k", "v", "up", "down")],
    "llama dora": [dora("q", "v")],
    "llama ia3": [ia3("k", "v", "down")],
    "llama prefix": [prefix()],
    "t5 houlsby": [adapter(4)],
    "t5 lora": [lora("q", "v", layers=(0, 2, 3))],
    "t5 dora": [dora("q", "v", "up")],
    "t5 ia3": [("ia3", {}, ())],
    "t5 compacter": [compacter("both")],
    "bart houlsby": [adapter(4)],
    "bart parallel": [parallel(4, "both")],
    "bart lora": [lora("q", "v", "up", "down")],
    "bart prefix": [prefix()],
    "bart mix": [lora("q", "v"), parallel(8), prefix((1, 2))],
}
NEAREST: Mapping[str, list[Placed]] = {
    "bert pfeiffer": [adapter(4, "ffn")],
    "bert dora": [dora("q", "v")],
    "llama dora of another alpha": [dora("q", "v", alpha=6.0)],
    "bert ia3": [("ia3", {}, ())],
    "gpt2 parallel": [parallel(8)],
    "t5 prefix": [prefix()],
}
GATES: Mapping[str, list[Placed]] = {
    "bert unipelt": [prefix(), adapter(4, "ffn"), lora("q", "v")],
    "bert lora": [lora("q", "v")],
    "bert after ffn": [adapter(4, "ffn")],
    "bert parallel": [parallel(8)],
    "bert prefix": [prefix()],
}
"""All with gates, which stand in the place of alpha / r there."""

MATRICES = {"bert vera": 4 * (3 * 3 + 16 * 16 - 3 - 16)}
"""How many elements more AdapterHub trains."""


def attached(case: Mapping[str, Any], placed: list[Placed]) -> Attached:
    """The method on the small model with the tensors of AdapterHub."""
    model = formula.small(case["model"])
    every = range(4 if model.config.is_encoder_decoder else 2)
    placements = [Placement.of(name, layers or every, options) for name, options, layers in placed]
    on = attach(model, PeftConfig.of(placements))
    config = str(case["config"])
    theirs = {key: formula.of_method(key, tuple(s), config) for key, s in case["tensors"].items()}
    fill(on, theirs)
    return on


def difference(on: Attached, case: Mapping[str, Any]) -> float:
    """The largest one between the outputs, relative to the largest output."""
    ours, theirs = formula.output(on.model).flatten(), torch.tensor(case["output"])
    return float((ours - theirs).abs().max() / theirs.abs().max())


@pytest.mark.parametrize("name", formula.MODELS)
def test_backbones_are_alike(name: str) -> None:
    """What follows compares methods, not versions of transformers."""
    ours, theirs = formula.output(formula.small(name)).flatten(), GOLDEN["backbones"][name]
    assert (ours - torch.tensor(theirs)).abs().max() < 1e-5


@pytest.mark.parametrize("name", SAME)
def test_a_method_is_that_of_adapterhub(name: str) -> None:
    case = GOLDEN["same"][name]
    on = attached(case, SAME[name])
    trained = sum(weight.numel() for weight in on.trainable().values())
    assert trained == case["trained"] - MATRICES.get(name, 0)
    assert difference(on, case) < 1e-5


@pytest.mark.parametrize("name", NEAREST)
def test_a_method_that_adapterhub_understands_differently(name: str) -> None:
    case = GOLDEN["differences"][name]
    assert difference(attached(case, NEAREST[name]), case) > 0.01


@pytest.mark.parametrize("name", GATES)
def test_a_gate_is_that_of_unipelt(name: str) -> None:
    case = GOLDEN["unipelt_gates"][name]
    gated = []
    for method, options, layers in GATES[name]:
        scale = {"lora_alpha": float(options["r"])} if method == "lora" else {}
        gated.append((method, {**options, **scale, "use_gating": True}, layers))
    on = attached(case, gated)
    assert sum(weight.numel() for weight in on.trainable().values()) == case["trained"]
    assert difference(on, case) < 1e-5


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_a_gate_of_a_causal_layer_would_see_what_comes(name: str) -> None:
    config = PeftConfig.of([Placement.of("lora", [0], {"r": 2, "use_gating": True})])
    with pytest.raises(AttachError, match="lora on layers 0: a gate averages over the whole"):
        attach(formula.small(name), config)


def test_every_golden_value_is_compared() -> None:
    assert GOLDEN["same"].keys() == SAME.keys()
    assert GOLDEN["differences"].keys() == NEAREST.keys()
