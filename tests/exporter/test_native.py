from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from autopeft.core.config import PeftConfig
from autopeft.core.errors import ExportError
from autopeft.exporter import load
from tests.backbones import inputs, logits, tiny
from tests.contracts.exporter import MIXES, adapter, backbone, exported, lora, train
from tests.contracts.method import assert_same, fingerprint

CONFIG = PeftConfig.of([lora([0], lora_alpha=5.0), adapter([1])], {"learning_rate": 1e-3})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    trained, _ = train(backbone(tiny("bert")), CONFIG, inputs("bert"))
    return exported("native", trained, tmp_path / "out")


def test_folder_holds_the_configuration_and_only_trained_tensors(folder: Path) -> None:
    assert sorted(p.name for p in folder.iterdir()) == [
        "README.md",
        "config.json",
        "config.yaml",
        "peft.safetensors",
    ]
    names = load_file(folder / "peft.safetensors")
    assert "layers.0.lora.self.q.A" in names
    assert "head.classifier.weight" in names
    assert not any("embeddings" in name for name in names)


def test_loaded_configuration_is_the_same_value(folder: Path) -> None:
    assert load(tiny("bert"), folder).config == CONFIG


def test_loaded_model_detaches_to_its_own_bits(folder: Path) -> None:
    model = tiny("bert")
    before = fingerprint(model)
    load(model, folder).detach()
    assert_same(before, fingerprint(model))


@pytest.mark.parametrize(
    ("architecture", "changes", "sentence"),
    [
        ("roberta", {}, "was trained on bert with 2 layers of width 32, got roberta"),
        ("bert", {"num_hidden_layers": 3}, "bert with 2 layers of width 32, got bert with 3"),
        ("bert", {"hidden_size": 64}, "of width 32, got bert with 2 layers of width 64"),
        ("bert", {"intermediate_size": 40, "num_labels": 5}, "head.classifier.weight must have"),
    ],
)
def test_another_backbone_is_refused_and_left_alone(
    folder: Path, architecture: str, changes: dict[str, int], sentence: str
) -> None:
    model = tiny(architecture, **changes)
    before = fingerprint(model)
    with pytest.raises(ExportError, match=sentence):
        load(model, folder)
    assert_same(before, fingerprint(model))


def test_model_without_the_head_is_refused(folder: Path) -> None:
    with pytest.raises(ExportError, match=r"BertModel has no module 'bert.pooler'"):
        load(tiny("bert").bert, folder)


@pytest.mark.parametrize("name", ["config.yaml", "peft.safetensors"])
def test_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(ExportError, match=rf"{name}: no such file"):
        load(tiny("bert"), folder)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [("a: [", "config.yaml"), ("train: {}", "is no configuration"), ("place: 3", "is no config")],
)
def test_unreadable_configuration_is_an_export_error(
    folder: Path, text: str, sentence: str
) -> None:
    (folder / "config.yaml").write_text(text)
    with pytest.raises(ExportError, match=sentence):
        load(tiny("bert"), folder)


def test_foreign_or_broken_tensors_are_refused(folder: Path) -> None:
    save_file({"x": torch.zeros(1)}, folder / "peft.safetensors")
    with pytest.raises(ExportError, match="was not written by"):
        load(tiny("bert"), folder)
    (folder / "peft.safetensors").write_bytes(b"nonsense")
    with pytest.raises(ExportError, match="is no safetensors file"):
        load(tiny("bert"), folder)


def test_edited_configuration_no_longer_fits(folder: Path) -> None:
    path = folder / "config.yaml"
    path.write_text(path.read_text().replace("r: 3", "r: 4"))
    with pytest.raises(ExportError, match="do not fit the model"):
        load(tiny("bert"), folder)


def test_every_mix_survives_a_second_export(tmp_path: Path) -> None:
    config = MIXES["prefix and biases"]
    trained, expected = train(backbone(tiny("bert")), config, inputs("bert"))
    for name in ("first", "second"):
        output = exported("native", trained, tmp_path / name)
        attached = load(tiny("bert"), output)
        assert torch.equal(logits(attached.model, inputs("bert")), expected)
        trained = type(trained)(trained.backbone, attached.config, attached.state_dict())
