from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification, BitsAndBytesConfig

from autopeft.core.config import PeftConfig
from autopeft.core.errors import ExportError
from tests.backbones import inputs, logits, tiny
from tests.contracts.exporter import BITFIT, Trained, adapter, backbone, exported, lora, train


def write(trained: Trained, output: Path) -> Path:
    return exported("merged", trained, output)


def test_stock_transformers_loads_it_with_head_and_labels(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = tiny("bert", num_labels=3, id2label={0: "no", 1: "maybe", 2: "yes"})
    config = PeftConfig.of([lora([0, 1], targets=("q", "o", "up")), BITFIT])
    trained, expected = train(backbone(model), config, inputs("bert"))
    output = write(trained, tmp_path / "out")
    assert capfd.readouterr() == ("", "")
    again = AutoModelForSequenceClassification.from_pretrained(output).eval()
    assert (logits(again, inputs("bert")) - expected).abs().max() < 1e-4
    assert again.config.id2label == {0: "no", 1: "maybe", 2: "yes"}
    assert torch.equal(again.classifier.weight, trained.state["head.classifier.weight"])
    assert not list(output.glob("adapter_*"))


def test_placements_that_do_not_merge_are_named(tmp_path: Path) -> None:
    config = PeftConfig.of([lora([0]), adapter([0, 1])])
    trained, _ = train(backbone(tiny("bert")), config, inputs("bert"))
    with pytest.raises(ExportError, match=r"^format merged: adapter on layers 0, 1: does not"):
        write(trained, tmp_path / "out")


def test_half_precision_is_kept(tmp_path: Path) -> None:
    model = tiny("bert").to(torch.bfloat16)
    trained, _ = train(backbone(model), PeftConfig.of([lora([0])]), inputs("bert"))
    output = write(trained, tmp_path / "out")
    again = AutoModelForSequenceClassification.from_pretrained(output)
    assert {p.dtype for p in again.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}


def test_quantized_backbone_is_refused_with_the_reason(tmp_path: Path) -> None:
    tiny("bert", hidden_size=64, intermediate_size=64).save_pretrained(tmp_path / "base")
    model = AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "base",
        quantization_config=BitsAndBytesConfig(
            load_in_4bit=True, llm_int8_skip_modules=["classifier", "bert.pooler"]
        ),
    ).eval()
    trained, _ = train(backbone(model), PeftConfig.of([BITFIT]), inputs("bert"))
    with pytest.raises(ExportError, match="the backbone: is quantized"):
        write(trained, tmp_path / "out")


def test_cache_of_generation_is_on_again(tmp_path: Path) -> None:
    model = tiny("llama")
    model.config.use_cache = False
    trained, _ = train(backbone(model), PeftConfig.of([lora([0])]), inputs("llama"))
    again = type(model).from_pretrained(write(trained, tmp_path / "out"))
    assert again.config.use_cache
    assert not model.config.use_cache
