"""Methods that HF peft has as types of their own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from autopeft.core.config import PeftConfig, Placement
from autopeft.core.errors import ExportError
from autopeft.exporter import EXPORTERS, Trained
from autopeft.method.registry import METHODS
from tests.backbones import inputs, logits, tiny
from tests.contracts.exporter import backbone, exported, train


def of(method: str, *layered: tuple[list[int], dict[str, Any]]) -> PeftConfig:
    example = METHODS[method].example
    return PeftConfig.of(Placement.of(method, layers, {**example, **o}) for layers, o in layered)


MIXED = {
    "hira": of("hira", ([0, 1], {}), ([1], {"targets": ("v", "o"), "r": 2})),
    "loha": of("loha", ([0], {}), ([1], {"r": 2, "alpha": 5.0})),
    "lokr": of("lokr", ([0], {"targets": ("o", "up")}), ([1], {"targets": ("up",), "r": 16})),
    "norm": of("norm", ([0, 1], {}), ([1], {})),
    "vera": of("vera", ([0], {"r": 4}), ([1], {"targets": ("k", "v", "o", "up")})),
}
"""Several shapes and, where methods have them, ranks and scales; twice at a module where it may."""


def difference(found: Tensor, expected: Tensor) -> float:
    """Relative to the largest of the expected."""
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize(
    ("method", "name"),
    [
        *((method, name) for method in ("hira", "vera") for name in ("bert", "gpt2", "gpt_neox")),
        *((method, name) for method in ("loha", "lokr") for name in ("llama", "gpt_neox")),
        *(("norm", name) for name in ("bert", "gemma", "gpt2")),
    ],
)
@torch.no_grad()
def test_stock_peft_computes_the_same(method: str, name: str, tmp_path: Path) -> None:
    """Also on parts of fused projections, on weights that lie as (inputs, outputs), and merged.

    The norms of gemma keep their difference from one; those of bert are also of the embeddings.
    """
    trained, expected = train(backbone(tiny(name)), MIXED[method], inputs(name))
    exported("peft", trained, tmp_path / "out")
    model = peft.PeftModel.from_pretrained(tiny(name), tmp_path / "out").eval()
    assert difference(logits(model, inputs(name)), expected) < 1e-5
    assert difference(logits(tiny(name), inputs(name)), expected) > 1e-3
    model.merge_adapter()
    assert difference(logits(model, inputs(name)), expected) < 1e-5


@pytest.mark.parametrize(
    ("name", "more", "ranks"),
    [("bert", "o", 4 + 5), ("bert", "up", 4 + 5 + 5), ("gpt2", "o", 4 + 4 + 5)],
)
def test_matrices_that_sites_share_take_ranks_once(name, more, ranks, tmp_path: Path) -> None:
    """Those of another rank, another shape or other outputs of a module take more."""
    config = of("vera", ([0], {"targets": ("q", "v"), "r": 4}), ([1], {"targets": ("q", more)}))
    trained, _ = train(backbone(tiny(name)), config, inputs(name))
    exported("peft", trained, tmp_path / "out")
    assert json.loads((tmp_path / "out/adapter_config.json").read_text())["r"] == ranks


@pytest.mark.parametrize(
    ("config", "name", "reason"),
    [
        (
            of("loha", ([1], {"targets": ("o",)})),
            "gpt2",
            "loha on layers 1: HF peft has it neither",
        ),
        (of("lokr", ([0], {})), "gpt_neox", "lokr on layers 0: HF peft takes a fused projection"),
        (of("loha", ([0], {}), ([0], {"r": 2})), "bert", "loha on layers 0: HF peft has one of it"),
        (of("lokr", ([0], {}), ([0], {"r": 2})), "bert", "lokr on layers 0: HF peft has one of it"),
        (of("vera", ([0], {}), ([0], {"r": 2})), "bert", "vera on layers 0: HF peft has one of it"),
    ],
)
def test_what_a_type_has_not_is_refused(config, name, reason, tmp_path: Path) -> None:
    trained, _ = train(backbone(tiny(name)), config, inputs(name))
    with pytest.raises(ExportError, match=reason):
        exported("peft", trained, tmp_path / "out")


@pytest.mark.parametrize("name", ["llama", "gemma"])
@torch.no_grad()
def test_stock_peft_has_the_same_prompt(name: str, tmp_path: Path) -> None:
    network = {"length": 3, "encoder_reparameterization_type": "mlp"}
    trained, expected = train(backbone(tiny(name)), of("prompt", ([0, 1], network)), inputs(name))
    exported("peft", trained, tmp_path / "out")
    model = peft.PeftModel.from_pretrained(tiny(name), tmp_path / "out").eval()
    real = inputs(name)["attention_mask"].bool()
    found = logits(model, inputs(name))[:, 3:]
    assert difference(found[real], expected[real]) < 1e-5
    assert difference(logits(tiny(name), inputs(name))[real], expected[real]) > 1e-3
    row = {key: tensor[:1] for key, tensor in inputs(name).items()}
    settings = {"max_new_tokens": 5, "do_sample": False, "pad_token_id": 0}
    said = model.generate(**row, **settings)
    with trained.attached() as attached:
        assert torch.equal(attached.model.generate(**row, **settings), said)


@pytest.mark.parametrize(
    ("name", "layers", "options", "reason"),
    [
        ("llama", [1], {}, "on all 2 layers alone"),
        ("llama", [0, 1], {"deep": True}, "on all 2 layers alone"),
        ("mistral", [0, 1], {}, "leave the window"),
        ("gpt2", [0, 1], {}, "changed before the first layer"),
        ("bert", [0, 1], {}, "that a head reads"),
    ],
)
def test_other_prompts_are_refused(name, layers, options, reason, tmp_path: Path) -> None:
    trained, _ = train(backbone(tiny(name)), of("prompt", (layers, options)), inputs(name))
    with pytest.raises(ExportError, match=reason):
        exported("peft", trained, tmp_path / "out")


def test_packed_weights_are_refused_where_peft_takes_their_shape(tmp_path: Path) -> None:
    tiny("llama", hidden_size=64, intermediate_size=64).save_pretrained(tmp_path)
    packed = BitsAndBytesConfig(load_in_4bit=True)
    model = AutoModelForCausalLM.from_pretrained(tmp_path, quantization_config=packed)
    refused = {
        method: bool(EXPORTERS["peft"].obstacles(Trained(backbone(model), MIXED[method], {})))
        for method in ("loha", "lokr", "vera", "norm")
    }
    assert refused == {"loha": True, "lokr": True, "vera": False, "norm": False}
