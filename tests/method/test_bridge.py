"""Layers of HF peft at the sites of a placement do what HF peft does on the whole model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

from autopeft.core.config import PeftConfig, Placement
from autopeft.core.errors import AttachError, ExportError, SpaceError
from autopeft.method import bridge
from autopeft.method.attach import Attached, attach
from autopeft.method.count import count, trained_elements
from autopeft.method.sites import shape_of
from autopeft.space import SearchSpace
from tests.backbones import inputs, logits, tiny
from tests.contracts.exporter import backbone, exported, train
from tests.method.test_oracles import LAYERS, gradients, ours, site, sites

TYPES: Mapping[str, Mapping[str, Any]] = {
    "beft": {},
    "boft": {"boft_block_size": 4},
    "c3a": {"block_size": 8},
    "deft": {},
    "delora": {},
    "fourierft": {"n_frequency": 20},
    "glora": {},
    "gralora": {"r": 4, "gralora_k": 2},
    "hira": {"r": 4},
    "hra": {"r": 4},
    "ia3": {"feedforward_modules": []},
    "loha": {"r": 4},
    "lokr": {"r": 4},
    "lora": {"r": 4, "use_rslora": True},
    "miss": {"r": 4},
    "oft": {"oft_block_size": 8},
    "peanut": {},
    "psoft": {"r": 8},
    "pvera": {"r": 4},
    "randlora": {"r": 4},
    "road": {"group_size": 8},
    "shira": {"r": 2},
    "supertuning": {},
    "vblora": {"r": 4, "num_vectors": 12, "vector_length": 8},
    "waveft": {"n_frequency": 20},
}


def roles(kind: str) -> tuple[str, ...]:
    """Some random matrices are cut out of those for the largest linear of a model."""
    return ("q",) if kind in ("pvera", "randlora") else ("q", "down")


def bridged(kind: str) -> Attached:
    return ours("peft", peft_type=kind, targets=roles(kind), **TYPES[kind])


def theirs_of(on: Attached, kind: str) -> Any:
    """HF peft's model with the tensors of ours."""
    made = next(c for t, c in PEFT_TYPE_TO_CONFIG_MAPPING.items() if t.value.lower() == kind)
    torch.manual_seed(0)
    theirs = peft.get_peft_model(
        tiny("bert"), made(target_modules=sites(*roles(kind)), **TYPES[kind])
    )
    for trained in on.sites:
        place = site(trained.placed.layer, trained.placed.site.at.removeprefix("self."))
        layer = theirs.get_submodule(f"base_model.model.{place}")
        named = {**dict(layer.named_parameters()), **dict(layer.named_buffers())}
        by_short = {name.replace(".default", ""): tensor for name, tensor in named.items()}
        with torch.no_grad():
            for name, tensor in trained.tensors.items():
                by_short[name].copy_(tensor)
    return theirs.eval()


@pytest.mark.parametrize("kind", sorted(TYPES))
def test_a_type_of_peft(kind: str) -> None:
    """Outputs, gradients and merged weights."""
    on = bridged(kind)
    theirs, batch = theirs_of(on, kind), inputs("bert")
    expected = logits(theirs, batch)
    assert (expected - logits(tiny("bert"), batch)).abs().max() > 1e-4
    assert torch.allclose(logits(on.model, batch), expected, atol=1e-5)
    here, there = gradients(on, theirs)
    trained = sum(weight.numel() for weight in on.trainable().values())
    assert trained == sum(g.numel() for g in there.values())
    total = sum(float(g.square().sum()) for g in here.values())
    assert total == pytest.approx(sum(float(g.square().sum()) for g in there.values()), rel=1e-3)
    before = {name: w.detach().clone() for name, w in tiny("bert").named_parameters()}
    on.merge()
    assert torch.allclose(logits(on.model, batch), expected, atol=1e-4)
    options = {"peft_type": kind, "targets": roles(kind), **TYPES[kind]}
    counts = count(PeftConfig.of([Placement.of("peft", LAYERS, options)]), shape_of(tiny("bert")))
    assert counts.trainable == trained
    changed = sum(int((w != before[n]).sum()) for n, w in on.model.named_parameters())
    assert counts.changed == pytest.approx(changed, rel=0.01)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"peft_type": "mis"}, r"unknown type 'mis'.*did you mean 'miss'"),
        ({"peft_type": "miss", "rank": 4}, r"unknown option of miss 'rank'"),
        ({"peft_type": "miss", "target_modules": ["q"]}, r"unknown option of miss"),
        ({"peft_type": "vera"}, r"HF peft does not put vera at a linear: .*shared state"),
        ({"peft_type": "lily"}, r"lily shares tensors between neighbouring layers"),
        ({"peft_type": "adalora"}, "adalora moves its ranks by calls between the steps"),
        ({"peft_type": "prefix_tuning"}, r"HF peft "),
        ({"peft_type": "lora", "r": -1}, r"HF peft .*lora"),
    ],
)
def test_what_peft_cannot_do_is_refused(options: Mapping[str, Any], reason: str) -> None:
    with pytest.raises(AttachError, match=reason):
        attach(tiny("bert"), PeftConfig.of([Placement.of("peft", LAYERS, options)]))


@pytest.mark.parametrize("kind", sorted(TYPES))
def test_a_folder_is_read_by_peft(kind: str, tmp_path: Path) -> None:
    options = {"peft_type": kind, "targets": roles(kind), **TYPES[kind]}
    config = PeftConfig.of([Placement.of("peft", LAYERS, options)])
    trained, expected = train(backbone(tiny("bert")), config, inputs("bert"))
    exported("peft", trained, tmp_path / "out")
    model = peft.PeftModel.from_pretrained(tiny("bert"), tmp_path / "out").eval()
    assert (logits(model, inputs("bert")) - expected).abs().max() < 1e-4


@pytest.mark.parametrize("kind", ["fourierft", "hira", "hra", "loha", "lora", "miss", "oft"])
def test_a_folder_at_conv1d_is_read_by_peft_or_refused(kind: str, tmp_path: Path) -> None:
    options = {"peft_type": kind, "targets": ("o", "down"), **TYPES[kind]}
    config = PeftConfig.of([Placement.of("peft", LAYERS, options)])
    trained, expected = train(backbone(tiny("gpt2")), config, inputs("gpt2"))
    if kind in ("hra", "loha", "miss", "oft"):
        with pytest.raises(ExportError, match=f"HF peft has no {kind} at Conv1D"):
            exported("peft", trained, tmp_path / "out")
        return
    exported("peft", trained, tmp_path / "out")
    model = peft.PeftModel.from_pretrained(tiny("gpt2"), tmp_path / "out").eval()
    assert (logits(model, inputs("gpt2")) - expected).abs().max() < 1e-4


def test_what_one_folder_of_peft_cannot_hold_is_refused(tmp_path: Path) -> None:
    def refused(name: str, *placements: tuple[list[int], dict[str, Any]]) -> str:
        config = PeftConfig.of([Placement.of("peft", layers, o) for layers, o in placements])
        trained, _ = train(backbone(tiny(name)), config, inputs(name))
        with pytest.raises(ExportError) as caught:
            exported("peft", trained, tmp_path / "out")
        return str(caught.value)

    miss, road = {"peft_type": "miss", "r": 4}, {"peft_type": "road", "group_size": 8}
    assert "one type with one set of options" in refused("bert", ([0], miss), ([1], road))
    bank = {"peft_type": "vblora", "targets": ("q",), **TYPES["vblora"]}
    faster = {**bank, "learning_rate": 0.1}
    assert "shares its tensors between all modules" in refused("bert", ([0], bank), ([1], faster))
    assert "one of it at a module" in refused("bert", ([0], miss), ([0], miss))
    assert "takes a fused projection whole" in refused("gpt2", ([0], miss))


def test_a_space_searches_the_options_of_a_type() -> None:
    place = [
        {
            "method": "peft",
            "peft_type": {"choice": ["miss", "hra"], "per": "space"},
            "r": {"choice": [2, 4]},
            "where": {"subset": "groups"},
        }
    ]
    space = SearchSpace(layers={"groups": 2}, place=place)
    assert SearchSpace.load(space.to_dict()) == space
    bound = space.on(shape_of(tiny("bert")), trained_elements)
    assert len(bound.dimensions) == 1 + 2 + 2
    point = {name: d.from_unit(0.99) for name, d in bound.dimensions.items()}
    (placement,) = bound.resolve(point).placements
    assert dict(placement.options) == {"peft_type": "hra", "targets": ("q", "v"), "r": 4}
    config = PeftConfig.of([placement])
    assert PeftConfig.from_dict(config.to_dict()) == config


def test_options_of_a_type_are_values() -> None:
    with pytest.raises(SpaceError, match=r"place\[0\].init.choice\[0\]: must be a text, a number"):
        SearchSpace(place=[{"method": "peft", "peft_type": "miss", "init": {"choice": [[{}]]}}])
    with pytest.raises(SpaceError, match="peft needs peft_type: a name"):
        SearchSpace(place=[{"method": "peft"}])


@pytest.mark.parametrize(("kind", "again"), [("lora", 0), ("road", 0), ("oft", 4)])
def test_a_linear_runs_again_only_on_another_input(
    kind: str, again: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OFT turns the input, at each of four sites."""
    on, runs = bridged(kind), 0
    plain = torch.nn.Linear.forward

    def counted(self: torch.nn.Linear, x: torch.Tensor) -> torch.Tensor:
        nonlocal runs
        runs += isinstance(self, bridge._Known)
        return plain(self, x)

    monkeypatch.setattr(torch.nn.Linear, "forward", counted)
    logits(on.model, inputs("bert"))
    assert runs == again
