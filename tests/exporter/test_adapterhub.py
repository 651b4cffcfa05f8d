from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from autopeft.core.config import PeftConfig, Placement
from autopeft.core.errors import ExportError
from autopeft.exporter import Trained
from autopeft.exporter.adapterhub import REASONS
from autopeft.exporter.adapterhub_names import NAMES
from autopeft.method.registry import METHODS
from benchmarks.oracles import formula
from benchmarks.oracles.folders import FORMS
from tests.adapterhub import read
from tests.backbones import inputs, tiny
from tests.contracts.exporter import adapter, backbone, exported, lora, train
from tests.method.test_adapterhub import GOLDEN, SAME, attached

KNOWN = {"adapter", "compacter", "lora", "prefix"}
EXACT = [
    name
    for name, placed in SAME.items()
    if {method for method, _, _ in placed} <= KNOWN and "projection" not in str(placed)
]


def written(folder: Path, file: str = "pytorch_adapter.bin") -> Mapping[str, Tensor]:
    tensors: Mapping[str, Tensor] = torch.load(folder / file)
    return tensors


def told(folder: Path) -> Mapping[str, Any]:
    config: Mapping[str, Any] = json.loads((folder / "adapter_config.json").read_text("utf-8"))
    return config


@pytest.mark.parametrize("name", EXACT)
def test_adapterhub_gets_the_tensors_that_it_would_have_written(name: str, tmp_path: Path) -> None:
    case = GOLDEN["same"][name]
    on = attached(case, SAME[name])
    state = {key: tensor.clone() for key, tensor in on.state_dict().items()}
    on.detach()
    output = exported("adapters", Trained(backbone(on.model), on.config, state), tmp_path / "out")
    ours, config, said = written(output), str(case["config"]), told(output)["config"]
    in_both = case["config"].keys() & said.keys() if isinstance(case["config"], dict) else ()
    assert {key: said[key] for key in in_both} == {key: case["config"][key] for key in in_both}
    assert {key: list(tensor.shape) for key, tensor in ours.items()} == case["tensors"]
    for key, tensor in ours.items():
        theirs = formula.of_method(key, tuple(tensor.shape), config)
        assert torch.allclose(tensor, theirs, atol=1e-6), key


def test_every_known_backbone_is_checked_by_the_library_itself() -> None:
    assert NAMES.keys() == FORMS.keys()


@pytest.mark.parametrize("name", ["roberta", "distilbert", "mistral", "t5", "bart"])
def test_adapters_and_low_rank_read_back_equal(name: str, tmp_path: Path) -> None:
    ranks = [lora([0, 1], targets=("q", "up")), lora([1], targets=("q", "v"), r=5)]
    config = PeftConfig.of([*ranks, adapter([1]), Placement.of("adapter", [0], {"size": 5})])
    trained, expected = train(backbone(tiny(name)), config, inputs(name))
    output = exported("adapters", trained, tmp_path / "out")
    again = read(output, tiny(name))
    with torch.no_grad():
        assert (again(**inputs(name)).logits - expected).abs().max() < 1e-4
    *_, low_rank = told(output)["config"]["configs"]
    assert (low_rank["r"], low_rank["alpha"]) == (8, 8.0)


def test_biases_may_be_missing(tmp_path: Path) -> None:
    placed = [("compacter", [0], {"size": 4, "bias": False})]
    placed += [("adapter", [1], {"size": 3, "bias": False})]
    config = PeftConfig.of(Placement.of(*each) for each in placed)
    trained, expected = train(backbone(tiny("bert")), config, inputs("bert"))
    output = exported("adapters", trained, tmp_path / "out")
    with torch.no_grad():
        again = read(output, tiny("bert"))(**inputs("bert")).logits
    assert (again - expected).abs().max() < 1e-4
    assert not any(key.endswith(".b") for key in written(output))


def test_one_rank_and_one_scale_stay(tmp_path: Path) -> None:
    config = PeftConfig.of([lora([1], r=4, lora_alpha=6.0, lora_dropout=0.1)])
    trained, _ = train(backbone(tiny("bert")), config, inputs("bert"))
    output = exported("adapters", trained, tmp_path / "out")
    assert told(output)["config"] == {
        "architecture": "lora",
        "selfattn_lora": True,
        "attn_matrices": ["q", "v"],
        "intermediate_lora": False,
        "output_lora": False,
        "leave_out": [0],
        "r": 4,
        "alpha": 6.0,
        "dropout": 0.1,
    }
    names = {"bert.pooler.dense.weight", "bert.pooler.dense.bias"}
    names |= {"classifier.weight", "classifier.bias"}
    assert written(output, "pytorch_model_head.bin").keys() == names
    head = json.loads((output / "head_config.json").read_text("utf-8"))
    assert head["model_class"] == "BertForSequenceClassification"
    assert head["label2id"] == {"LABEL_0": 0, "LABEL_1": 1}


def test_a_model_without_a_trained_head_has_no_file_of_it(tmp_path: Path) -> None:
    trained, _ = train(backbone(tiny("gpt2")), PeftConfig.of([lora([0])]), inputs("gpt2"))
    output = exported("adapters", trained, tmp_path / "out")
    files = {path.name for path in output.iterdir()}
    assert not any("head" in file for file in files)
    assert all(key.startswith("transformer.h.0.attn.c_attn.") for key in written(output))


@pytest.mark.parametrize(
    ("architecture", "placed", "reason"),
    [
        ("bert", [("lora", [0], {"targets": ("q", "o")})], "LoRA at q, k, v, up, down alone"),
        ("llama", [("lora", [0], {"targets": ("gate",)})], "LoRA at q, k, v, up, down alone"),
        ("llama", [("adapter", [0], {"size": 4, "form": "parallel"})], "what no norm has seen"),
        (
            "bert",
            [("adapter", [0, 1], {"size": 4}), ("adapter", [1], {"size": 4, "at": "both"})],
            "one adapter after a sublayer",
        ),
        (
            "bert",
            [("compacter", [0], {"size": 4}), ("compacter", [1], {"size": 8})],
            "one Compacter in a folder",
        ),
        ("bert", [("compacter", [0], {"size": 6})], "sizes and widths that phm_dim divides"),
        (
            "bert",
            [("prefix", [0], {"length": 2}), ("prefix", [1], {"length": 3})],
            "one length of prefixes",
        ),
        ("t5", [("prefix", [0], {"length": 2})], "moves the relative positions"),
        ("bert", [("full", [0], {})], "AdapterHub has no such method"),
        *(("bert", [(name, [0], METHODS[name].example)], REASONS[name]) for name in REASONS),
    ],
)
def test_what_adapterhub_lacks_is_refused(
    architecture: str, placed: list[Any], reason: str, tmp_path: Path
) -> None:
    config = PeftConfig.of(Placement.of(*each) for each in placed)
    trained, _ = train(backbone(tiny(architecture)), config, inputs(architecture))
    with pytest.raises(ExportError, match=reason.replace("(", r"\(").replace(")", r"\)")):
        exported("adapters", trained, tmp_path / "out")


@pytest.mark.parametrize(
    ("architecture", "changes", "reason"),
    [
        ("qwen2", {}, "the backbone: AdapterHub's names in qwen2 are not known"),
        ("llama", {"head_dim": 16}, "prefix on layers 0: AdapterHub wants keys of width 16"),
    ],
)
def test_backbones_that_adapterhub_sees_otherwise_are_refused(
    architecture: str, changes: dict[str, int], reason: str, tmp_path: Path
) -> None:
    config = PeftConfig.of([Placement.of("prefix", [0], {"length": 2})])
    on = backbone(tiny(architecture, **changes))
    trained, _ = train(on, config, inputs(architecture))
    with pytest.raises(ExportError, match=reason):
        exported("adapters", trained, tmp_path / "out")


def test_lengths_that_add_up_to_one_are_one(tmp_path: Path) -> None:
    placed = [("prefix", [0, 1], {"length": 2}), ("prefix", [0], {"length": 1})]
    placed += [("prefix", [1], {"length": 1, "prefix_projection": True})]
    config = PeftConfig.of(Placement.of(*each) for each in placed)
    trained, expected = train(backbone(tiny("bert")), config, inputs("bert"))
    output = exported("adapters", trained, tmp_path / "out")
    assert told(output)["config"]["prefix_length"] == 3
    with torch.no_grad():
        again = read(output, tiny("bert"))(**inputs("bert")).logits
    assert (again - expected).abs().max() < 1e-4
    assert 'set_attn_implementation("eager")' in (output / "README.md").read_text("utf-8")
