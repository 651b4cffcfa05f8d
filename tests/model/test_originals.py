"""LoftQ: what quantization takes of weights, and the branch that starts from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf
from bitsandbytes.functional import dequantize_4bit
from peft.utils.loftq_utils import _low_rank_decomposition
from safetensors.torch import load_file

from autopeft.core.config import PeftConfig, Placement
from autopeft.core.errors import AttachError
from autopeft.core.settings import BackboneSettings
from autopeft.method.attach import attach
from autopeft.method.member import lost_weight
from autopeft.method.registry import build
from autopeft.model.backbone import _keep_4bit_layout, load_backbone
from autopeft.model.checkpoint import locate
from autopeft.model.originals import Originals
from tests.backbones import tiny
from tests.minilm import MINILM

R, ALPHA = 3, 6.0
WIDE: dict[str, dict[str, Any]] = {
    "bert": {"hidden_size": 64, "intermediate_size": 128},
    "gpt2": {"n_embd": 64, "n_inner": 128},
}
BITS = {"nf4": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}, "int8": {"load_in_8bit": True}}


def placed(**options: Any) -> PeftConfig:
    start = {"r": R, "lora_alpha": ALPHA, "init_lora_weights": "loftq", **options}
    return PeftConfig.of([Placement.of("lora", [0, 1], start)])


def quantized(folder: Path, architecture: str, bits: str) -> tf.PreTrainedModel:
    """A tiny model in few bits."""
    whole = tiny(architecture, **WIDE[architecture])
    whole.save_pretrained(folder)
    settings = tf.BitsAndBytesConfig(**BITS[bits])
    where = {"device_map": "cpu", "dtype": torch.float32}
    model = type(whole).from_pretrained(folder, quantization_config=settings, **where)
    _keep_4bit_layout(model)  # as `load_backbone` does
    return model


@pytest.mark.parametrize("bits", ["nf4", "int8"])
@pytest.mark.parametrize("architecture", ["bert", "gpt2"])
def test_the_branch_gives_back_what_its_rank_holds(
    tmp_path: Path, architecture: str, bits: str
) -> None:
    """What is still missing are the singular values beyond it; GPT-2's linears are fused."""
    model = quantized(tmp_path, architecture, bits)
    whole = tiny(architecture, **WIDE[architecture])
    Originals(lambda: (whole, {})).tell(model)
    on = attach(model, placed())
    for site in on.sites:
        linear = whole.get_submodule(site.layer.linears[site.placed.site.at].path)
        weight = linear.get_parameter("weight").detach()
        weight = weight.T if architecture == "gpt2" else weight
        columns = site.layer.columns(site.placed.site.at)
        lost = lost_weight(site)
        assert 1e-4 < lost.norm() / weight.norm() < 0.2
        x = torch.eye(weight.shape[1])
        with torch.no_grad():
            made = site.module(x[None])[0].T
            full = linear(x[None])[0].T
        made, full = (m if columns is None else m[columns] for m in (made, full))
        beyond = torch.linalg.svdvals(lost)[R:].norm()
        assert torch.allclose((full - made).norm(), beyond, rtol=0.02)
        assert beyond < lost.norm()


def test_it_starts_where_peft_does() -> None:
    settings = BackboneSettings(dtype="float32", quantization="nf4")
    load = load_backbone(MINILM, "text-classification", settings, n_labels=2, device="cpu")
    ours = attach(load.model, placed(lora_alpha=float(R)))
    sites = {f"{s.layer.linears[s.placed.site.at].path}": s for s in ours.sites}
    branches = {name: s.weights["B"] @ s.weights["A"] for name, s in sites.items()}
    folder = locate(MINILM, "model")
    assert folder is not None
    published = load_file(folder / "model.safetensors")
    for name, branch in branches.items():
        quantized = load.model.get_submodule(name).get_parameter("weight")
        left = dequantize_4bit(quantized.data, quantized.quant_state)
        whole = published[f"{name.removeprefix('bert.')}.weight"]
        theirs = _low_rank_decomposition(whole - left, R)
        assert torch.allclose(branch, theirs["L"] @ theirs["R"], atol=1e-5)


@pytest.mark.parametrize(
    ("bits", "reason"),
    [
        ("", "starts from what quantization took, and the weights are whole"),
        ("nf4", "starts from what quantization took, which only a backbone of autopeft tells"),
    ],
)
def test_without_what_was_lost_it_is_refused(tmp_path: Path, bits: str, reason: str) -> None:
    model = quantized(tmp_path, "bert", bits) if bits else tiny("bert")
    with pytest.raises(AttachError, match=f"^lora .*: {reason}$"):
        attach(model, placed())


def test_when_trained_it_is_a_lora() -> None:
    placement = placed(use_dylora=True).placements[0]
    settled = build(placement).settled
    assert settled is not None
    assert dict(settled[1])["init_lora_weights"] == "default"
