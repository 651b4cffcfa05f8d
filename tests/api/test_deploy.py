"""A study searches what its target loads, and says what it goes without."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

import autopeft
from autopeft.api.deploy import TARGETS, deployable, runs_in
from autopeft.api.run import prepare
from autopeft.core.config import PeftConfig, Placement
from autopeft.core.errors import StudyError
from autopeft.exporter import EXPORTERS
from autopeft.method.registry import METHODS
from autopeft.model.head import HEADS
from autopeft.space import SearchSpace
from tests import tiny

TEXTS, WORDS = HEADS["text-classification"], HEADS["causal-lm"]


def methods(space) -> list[str]:
    """Of the placements of a space, in their order."""
    return [entry["method"] for entry in SearchSpace.load(space).to_dict()["place"]]


def test_every_target_has_its_format_and_known_methods() -> None:
    for target in TARGETS.values():
        assert target.format in EXPORTERS
        assert all(family <= METHODS.keys() for family in target.families)


def test_a_space_goes_without_what_cannot_be_loaded() -> None:
    left = deployable("layer-mix", "peft", TEXTS)
    assert methods(left.space) == ["lora", "bitfit"]
    assert left.lost == ("adapter", "prefix")
    left = deployable("layer-mix", "vllm", WORDS)
    assert methods(left.space) == ["lora"]
    assert left.lost == ("adapter", "bitfit", "prefix")
    for name in ("native", "onnx"):
        assert deployable("layer-mix", name, TEXTS).space == "layer-mix"


def test_of_choices_the_alternatives_stay_that_can_be_loaded() -> None:
    low, factors, sized = {"method": "lora", "r": 4}, {"method": "ia3"}, {"method": "adapter"}
    sized["size"] = 8
    place = [{"choice": ["none", low, [low, sized]]}, {"choice": [sized, "none"]}, low, factors]
    left = deployable({"name": "choices", "place": place}, "peft", TEXTS)
    assert left.lost == ("adapter", "ia3")
    first, second = SearchSpace.load(left.space).to_dict()["place"]
    assert first["choice"] == [[], [low]]
    assert second == low


def test_what_a_folder_holds_once_is_searched_once() -> None:
    dora, low = {"method": "dora", "r": 4}, {"method": "dora", "r": {"choice": [0, 8]}}
    left = deployable({"name": "twice", "place": [dora, low]}, "peft", TEXTS)
    assert SearchSpace.load(left.space).to_dict()["place"] == [dora]
    assert left.lost == ("dora",)
    one = {"method": "peft", "peft_type": "miss", "r": {"choice": [4, 8], "per": "space"}}
    several = {**one, "peft_type": {"choice": ["miss", "hra"]}}
    left = deployable({"name": "types", "place": [several, one]}, "peft", TEXTS)
    assert SearchSpace.load(left.space).to_dict()["place"] == [one]


@pytest.mark.parametrize("method", ["hira", "loha", "lokr", "norm", "vera"])
def test_a_type_of_hf_peft_is_searched_alone(method: str) -> None:
    place = [{"method": method}, {"method": "adapter", "size": 8}]
    left = deployable({"name": "alone", "place": place}, "peft", TEXTS)
    assert methods(left.space) == [method]
    assert left.lost == ("adapter",)


def test_adapterhub_has_one_adapter_in_a_place_and_lora_at_some() -> None:
    sized = {"method": "adapter", "size": {"choice": [0, 8]}}
    parallel = {**sized, "form": "parallel"}
    outputs = {"method": "lora", "targets": ["q", "cross.o"]}
    several = [{"choice": [parallel, [sized, outputs], "none"]}, sized, {**sized, "at": "both"}]
    left = deployable({"name": "several", "place": [*several, outputs]}, "adapters", TEXTS)
    assert SearchSpace.load(left.space).to_dict()["place"] == [sized]
    assert left.lost == ("adapter", "lora")
    left = deployable("layer-mix", "adapters", TEXTS)
    low, adapter = SearchSpace.load(left.space).to_dict()["place"]
    assert low["targets"] == {"choice": [["q", "v"]], "per": "space"}
    assert adapter["form"] == {"choice": ["sequential"], "per": "space"}
    assert left.lost == ("bitfit", "prefix")
    for role, is_taken in (("v", True), ("o", False)):
        options = {**METHODS["lora"].example, "targets": ("q", role)}
        assert left.takes(PeftConfig.of([Placement.of("lora", [0], options)])) == is_taken


@pytest.mark.parametrize(
    ("space", "name", "head", "reason"),
    [
        ("layer-mix", "vlm", WORDS, r"deploy: unknown target 'vlm'.*vllm"),
        ("layer-mix", "vllm", TEXTS, "vllm loads no trained head, which text-classification has"),
        ("pfeiffer", "peft", TEXTS, "peft loads nothing of the space, of all methods bitfit"),
        (
            {"place": [{"method": "lora"}], "backbone": {"quantization": {"choice": ["nf4"]}}},
            "merged",
            TEXTS,
            "merged takes no quantized backbone",
        ),
    ],
)
def test_what_can_never_be_deployed_is_refused(space, name, head, reason) -> None:
    with pytest.raises(StudyError, match=reason):
        deployable(space, name, head)


def test_a_folder_knows_what_loads_it() -> None:
    low = PeftConfig.of([Placement.of("lora", [0], METHODS["lora"].example)])
    assert runs_in("peft", low, WORDS) == ["peft", "vllm", "sglang", "llama.cpp"]
    assert runs_in("peft", low, TEXTS) == ["peft"]
    assert runs_in("onnx", low, TEXTS) == ["onnx"]
    factors = PeftConfig.of([Placement.of("ia3", [0], METHODS["ia3"].example)])
    assert runs_in("peft", factors, WORDS) == ["peft"]


def test_a_study_ends_in_what_its_target_loads(tmp_path: Path, caplog) -> None:
    document = {**tiny.study(tmp_path), "name": "served", "deploy": "peft"}
    document["space"]["place"].append({"method": "adapter", "size": {"choice": [0, 4]}})
    document["search"]["baselines"] = ["head-only", "pfeiffer"]
    with caplog.at_level(logging.WARNING):
        outcome = autopeft.run(document)
    said = [record.getMessage() for record in caplog.records]
    assert "peft cannot load adapter, which the space goes without" in said
    assert "peft cannot load the baseline pfeiffer, which is left out" in said
    assert {p.method for trial in outcome.trials for p in trial.config.placements} == {"lora"}
    output = autopeft.export(outcome, tmp_path / "best", pick="best")
    assert (output / "adapter_config.json").is_file()
    assert "Loads in: peft." in (output / "README.md").read_text(encoding="utf-8")
    assert autopeft.plan(document)["lost"] == ["adapter"]


def test_what_the_study_says_is_what_is_searched(tmp_path: Path) -> None:
    document = {**tiny.study(tmp_path), "name": "served", "deploy": "onnx"}
    assert prepare(document).lost == ()
