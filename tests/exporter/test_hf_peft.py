from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from autopeft.core.config import PeftConfig
from autopeft.core.errors import ExportError
from tests.backbones import ARCHITECTURES, inputs, logits, tiny
from tests.contracts.exporter import BITFIT, MIXES, PREFIX, adapter, backbone, exported, lora, train

FUSED = ("gpt2", "gpt_neox", "phi3")
DEEP = {"num_hidden_layers": 12}


def write(
    name: str, config: PeftConfig, output: Path, uniform: bool | None = None, **changes: int
) -> torch.Tensor:
    """Exports a made-up training and returns its logits."""
    trained, expected = train(backbone(tiny(name, **changes)), config, inputs(name))
    exported("peft", trained, output, uniform=uniform)
    return expected


@pytest.mark.parametrize("name", sorted({*ARCHITECTURES, *FUSED, "deberta-v2", "mistral"}))
def test_stock_peft_computes_the_same(name: str, tmp_path: Path) -> None:
    config = PeftConfig.of(
        [lora([0]), lora([1], targets=("q", "v", "o"), r=2), lora([1], targets=("k", "up"), r=4)]
    )
    expected = write(name, config, tmp_path / "out")
    model = peft.PeftModel.from_pretrained(tiny(name), tmp_path / "out").eval()
    assert (logits(model, inputs(name)) - expected).abs().max() < 1e-4
    assert (logits(tiny(name), inputs(name)) - expected).abs().max() > 1e-2


def test_layer_1_is_not_layer_11(tmp_path: Path) -> None:
    config = PeftConfig.of([lora([1], r=2), lora([10, 11], r=5, lora_alpha=7.0)])
    expected = write("bert", config, tmp_path / "out", uniform=False, **DEEP)
    model = peft.PeftModel.from_pretrained(tiny("bert", **DEEP), tmp_path / "out").eval()
    layers = model.base_model.model.bert.encoder.layer
    ranks = {i: getattr(layer.attention.self.query, "r", None) for i, layer in enumerate(layers)}
    assert {i: r["default"] for i, r in ranks.items() if r} == {1: 2, 10: 5, 11: 5}
    scaling = layers[11].attention.self.query.scaling["default"]
    assert scaling == pytest.approx(7 / 5)
    assert (logits(model, inputs("bert")) - expected).abs().max() < 1e-4


def test_equal_placements_need_no_patterns(tmp_path: Path) -> None:
    write("bert", PeftConfig.of([lora([0, 1], r=4, lora_dropout=0.1)]), tmp_path / "out")
    config = json.loads((tmp_path / "out/adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["lora_dropout"]) == (4, 8, 0.1)
    assert config["rank_pattern"] == config["alpha_pattern"] == {}
    assert config["task_type"] == "SEQ_CLS"
    assert config["modules_to_save"] == ["bert.pooler", "classifier"]


def vllm(config: dict[str, Any], a: Tensor, b: Tensor) -> Tensor:
    """One scale for all modules, whatever patterns say."""
    return config["lora_alpha"] / config["r"] * (b @ a)


def llama_cpp(config: dict[str, Any], a: Tensor, b: Tensor) -> Tensor:
    """The one alpha by the rank of each tensor."""
    return config["lora_alpha"] / a.shape[0] * (b @ a)


@pytest.mark.parametrize("rule", [vllm, llama_cpp])
@pytest.mark.parametrize("uniform", [None, True, False])
def test_mixed_ranks_are_read_right_by_what_takes_no_patterns(rule, uniform, tmp_path) -> None:
    """But for patterns, which are written where somebody asks for them."""
    mix = PeftConfig.of([lora([0], r=2, lora_alpha=3.0), lora([1], r=5), lora([0], r=4)])
    trained, _ = train(backbone(tiny("bert")), mix, inputs("bert"))
    exported("merged", trained, tmp_path / "merged")
    exported("peft", trained, tmp_path / "out", uniform=uniform)
    config = json.loads((tmp_path / "out/adapter_config.json").read_text())
    assert (config["rank_pattern"] == {} == config["alpha_pattern"]) == (uniform is not False)
    assert uniform is False or config["r"] == config["lora_alpha"] == 6
    merged = type(tiny("bert")).from_pretrained(tmp_path / "merged")
    tensors, errors = load_file(tmp_path / "out/adapter_model.safetensors"), []
    for name, a in tensors.items():
        if name.endswith(".lora_A.weight"):
            path = name.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
            change = rule(config, a, tensors[name.replace("lora_A", "lora_B")])
            before = tiny("bert").get_submodule(path).weight
            errors.append((merged.get_submodule(path).weight - before - change).abs().max())
    assert (max(errors) < 1e-5) == (uniform is not False)


def test_file_is_the_same_every_time(tmp_path: Path) -> None:
    config = PeftConfig.of([lora([1], r=2), lora([0], targets=("q", "k", "v", "o", "up"))])
    for name in ("a", "b"):
        write("bert", config, tmp_path / name)
    a, b = ((tmp_path / n / "adapter_config.json").read_bytes() for n in ("a", "b"))
    assert a == b


@pytest.mark.parametrize("name", ["bert", "bart", "vit", "gpt2", "gpt_neox"])
def test_biases_replace_those_of_the_base(name: str, tmp_path: Path) -> None:
    expected = write(name, PeftConfig.of([BITFIT]), tmp_path / "out")
    names = load_file(tmp_path / "out/adapter_model.safetensors")
    assert not any("lora" in name for name in names)
    model = peft.PeftModel.from_pretrained(tiny(name), tmp_path / "out").eval()
    assert (logits(model, inputs(name)) - expected).abs().max() < 1e-4


def test_head_alone_is_a_folder_without_lora(tmp_path: Path) -> None:
    expected = write("bert", PeftConfig(), tmp_path / "out")
    model = peft.PeftModel.from_pretrained(tiny("bert"), tmp_path / "out").eval()
    assert (logits(model, inputs("bert")) - expected).abs().max() < 1e-4
    assert not any("lora" in name for name, _ in model.named_parameters())


def test_merging_in_stock_peft_keeps_the_logits(tmp_path: Path) -> None:
    config = PeftConfig.of([lora([0, 1], targets=("q", "down")), BITFIT])
    expected = write("bert", config, tmp_path / "out")
    model = peft.PeftModel.from_pretrained(tiny("bert"), tmp_path / "out").merge_and_unload()
    assert (logits(model.eval(), inputs("bert")) - expected).abs().max() < 1e-4


def test_one_refusal_names_everything_in_the_way(tmp_path: Path) -> None:
    config = PeftConfig.of([lora([0]), adapter([1]), PREFIX])
    with pytest.raises(ExportError) as caught:
        write("bert", config, tmp_path / "out")
    text = str(caught.value)
    assert "adapter on layers 1: HF peft has no bottleneck adapters" in text
    assert "prefix on layers 0, 1: HF peft's prefix has one length" in text
    assert "lora" not in text


def test_auto_classes_find_the_base_model(tmp_path: Path) -> None:
    config = PeftConfig.of([lora([0, 1])])
    for name, auto in (
        ("bert", peft.AutoPeftModelForSequenceClassification),
        ("llama", peft.AutoPeftModelForCausalLM),
        ("t5", peft.AutoPeftModelForSeq2SeqLM),
        ("vit", peft.AutoPeftModel),
    ):
        tiny(name).save_pretrained(tmp_path / name)
        model = type(tiny(name)).from_pretrained(tmp_path / name).eval()
        trained, expected = train(backbone(model), config, inputs(name))
        output = tmp_path / f"{name}-peft"
        exported("peft", trained, output)
        again = auto.from_pretrained(output).eval()
        assert (logits(again, inputs(name)) - expected).abs().max() < 1e-4


@pytest.mark.parametrize("name", ["bert", "gpt2", "llama"])
@pytest.mark.parametrize("mix", ["pissa", "moslora", "dora", "ia3"])
def test_further_methods_are_those_of_peft(mix: str, name: str, tmp_path: Path) -> None:
    """Also on parts of a fused projection."""
    expected = write(name, MIXES[mix], tmp_path / "out")
    model = peft.PeftModel.from_pretrained(tiny(name), tmp_path / "out").eval()
    assert (logits(model, inputs(name)) - expected).abs().max() < 1e-4
    assert (logits(tiny(name), inputs(name)) - expected).abs().max() > 1e-2


@pytest.mark.parametrize(
    ("mix", "reason"),
    [
        ("dora twice", "dora on layers 0: HF peft has one of it at a module"),
        ("dora and lora", "HF peft has no folder with dora and lora"),
        ("ia3 and more", "norm on layers 1: HF peft has no folder with bitfit and ia3 and norm"),
        ("vera", "vera on layers 0, 1: HF peft has no folder with lora and vera"),
    ],
)
def test_what_peft_has_not_together_is_refused(mix: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=reason):
        write("bert", MIXES[mix], tmp_path / "out")
