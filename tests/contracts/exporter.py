"""What every export format promises, as checks that run over the registry.

A check takes the name of a format, the name of an architecture and an empty folder, and fails by
AssertionError. `READERS` says how stock tools load each format.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import SimpleNamespace

import onnxruntime
import peft
import pytest
import torch
import yaml
from torch import Tensor
from transformers import PreTrainedModel

from autopeft.core.config import PeftConfig, Placement
from autopeft.core.errors import ExportError
from autopeft.exporter import EXPORTERS, CardFacts, Trained, export, load
from autopeft.method.attach import attach
from autopeft.method.registry import METHODS, describe
from autopeft.method.sites import shape_of
from autopeft.model.backbone import Backbone, head_of
from autopeft.model.head import OneLabel
from tests import adapterhub
from tests.backbones import inputs, logits, tiny
from tests.contracts.method import assert_same, examples, fingerprint, stir

Reader = Callable[[Path, PreTrainedModel], torch.nn.Module]
Check = Callable[[str, str, Path], None]

READERS: dict[str, Reader] = {
    "native": lambda folder, fresh: load(fresh, folder).model,
    "peft": lambda folder, fresh: peft.PeftModel.from_pretrained(fresh, folder).eval(),
    "merged": lambda folder, fresh: type(fresh).from_pretrained(folder).eval(),
    "onnx": lambda folder, fresh: Session(folder),
    "adapters": adapterhub.read,
}


class Session(torch.nn.Module):
    """A graph under ONNX Runtime as a module."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.session = onnxruntime.InferenceSession(folder / "model.onnx")

    def forward(self, **batch: Tensor) -> SimpleNamespace:
        missing = torch.zeros_like(batch["input_ids"])
        names = [each.name for each in self.session.get_inputs()]
        given = {name: batch.get(name, missing).numpy() for name in names}
        (outputs,) = self.session.run(None, given)
        return SimpleNamespace(logits=torch.from_numpy(outputs))


FACTS = CardFacts("org/base", task="text-classification", metrics={"accuracy": 0.8125})


def lora(layers: list[int], **options: object) -> Placement:
    given = {"targets": ("q", "v"), "r": 3, "lora_alpha": None, "lora_dropout": 0.0, **options}
    return Placement.of("lora", layers, given)


def adapter(layers: list[int], form: str = "sequential") -> Placement:
    options = {"form": form, "at": "ffn", "size": 4, "activation": "relu", "bias": True}
    return Placement.of("adapter", layers, {**options, "scale": 1.0})


def _example(method: str, layers: list[int], **options: object) -> Placement:
    return Placement.of(method, layers, {**METHODS[method].example, **options})


PREFIX = Placement.of("prefix", [0, 1], {"length": 3})
BITFIT = Placement.of("bitfit", [0, 1], {})
EVA = lora([1], use_dylora=True, init_lora_weights="eva", freeze_a=True)

MIXES: Mapping[str, PeftConfig] = {
    "head": PeftConfig(),
    "lora": PeftConfig.of([lora([0]), lora([1], r=2, lora_alpha=3.0)]),
    "crowded": PeftConfig.of([lora([0, 1], targets=("q", "k", "o", "down")), lora([0], r=5)]),
    "biases": PeftConfig.of([BITFIT]),
    "lora and biases": PeftConfig.of([lora([0]), BITFIT]),
    "lora and adapter": PeftConfig.of([lora([0]), adapter([1]), adapter([0], "parallel")]),
    "prefix and biases": PeftConfig.of([PREFIX, BITFIT]),
    "pissa": PeftConfig.of([lora([0, 1], init_lora_weights="pissa"), lora([0], freeze_a=True)]),
    "dora": PeftConfig.of([_example("dora", [0]), _example("dora", [1], r=2, lora_alpha=3.0)]),
    "dora twice": PeftConfig.of([_example("dora", [0]), _example("dora", [0], r=2)]),
    "dora and lora": PeftConfig.of([_example("dora", [0]), lora([1])]),
    "moslora": PeftConfig.of([_example("moslora", [0, 1]), lora([1])]),
    "hira": PeftConfig.of([_example("hira", [0, 1])]),
    "ia3": PeftConfig.of([_example("ia3", [0, 1])]),
    "ia3 and more": PeftConfig.of([_example("ia3", [0]), BITFIT, _example("norm", [1])]),
    "experts": PeftConfig.of([_example("adamix", [0, 1]), _example("compacter", [0, 1])]),
    "nested": PeftConfig.of([lora([0], use_dylora=True), EVA, lora([0])]),
    "network": PeftConfig.of([_example("prefix", [0, 1], prefix_projection=True)]),
    "shared": PeftConfig.of([_example("compacter", [0, 1]), _example("ssf", [1])]),
    "own weights": PeftConfig.of([_example("full", [0]), _example("sparse", [1], select="fisher")]),
    "vera": PeftConfig.of([_example("vera", [0, 1]), lora([1])]),
    "everything": PeftConfig.of([_example(name, [i % 2]) for i, name in enumerate(METHODS)]),
}


SLOW = {"onnx": ("everything",)}
"""The mixes that are tried in a format whose folders take seconds."""


def reads_back_equal(format: str, architecture: str, folder: Path) -> None:
    """What a format accepts gives the same logits when its own tool loads it on a fresh model."""
    accepted = 0
    for name, trained, expected in _trained(architecture, SLOW.get(format)):
        if EXPORTERS[format].obstacles(trained):
            continue
        accepted += 1
        output = exported(format, trained, folder / name)
        with torch.no_grad():
            again = READERS[format](output, tiny(architecture))(**inputs(architecture)).logits
        assert (again - expected).abs().max() < 1e-4, f"{name} reads back differently"
    assert accepted, "the format accepts nothing"


def refuses_by_name(format: str, architecture: str, folder: Path) -> None:
    """A refusal names every placement in the way, and nothing is written."""
    for name, trained, _ in _trained(architecture):
        trained = trained.settled()
        obstacles = EXPORTERS[format].obstacles(trained)
        if obstacles:
            with pytest.raises(ExportError) as caught:
                exported(format, trained, folder / name)
            for obstacle in obstacles:
                assert obstacle.placement in trained.config.placements
                assert describe(obstacle.placement) in str(caught.value)
            assert list(folder.glob("*")) == list(folder.glob(".*")) == []


def leaves_the_backbone(format: str, architecture: str, folder: Path) -> None:
    """Writing changes no bit, flag, attribute or hook of the backbone."""
    for name, trained, _ in _trained(architecture, ("lora",) if format in SLOW else None):
        before = fingerprint(trained.model)
        if not EXPORTERS[format].obstacles(trained):
            exported(format, trained, folder / name)
        assert_same(before, fingerprint(trained.model))


def refuses_other_tensors(format: str, architecture: str, folder: Path) -> None:
    """Tensors that are missing or of another shape are an error, and nothing is written."""
    trained = next(t for n, t, _ in _trained(architecture) if n == "lora")
    first = next(iter(trained.state))
    missing = {name: tensor for name, tensor in trained.state.items() if name != first}
    wrong = {**trained.state, first: torch.zeros(1, 1)}
    for state in (missing, wrong):
        with pytest.raises(ExportError, match="do not fit"):
            exported(format, Trained(trained.backbone, trained.config, state), folder / "x")
    assert list(folder.iterdir()) == []


def carries_a_card(format: str, architecture: str, folder: Path) -> None:
    """README.md has front matter, the metrics and code that loads the folder."""
    trained = next(t for n, t, _ in _trained(architecture) if n == "lora")
    text = (exported(format, trained, folder / "out") / "README.md").read_text(encoding="utf-8")
    front = yaml.safe_load(text.split("---\n")[1])
    assert front["base_model"] == "org/base"
    assert front["library_name"] == EXPORTERS[format].library
    assert {"autopeft", "lora"} <= set(front["tags"])
    assert "| accuracy | 0.8125 |" in text
    assert '"out"' in text
    assert "FOLDER" not in text


CHECKS: tuple[Check, ...] = (
    reads_back_equal,
    refuses_by_name,
    leaves_the_backbone,
    refuses_other_tensors,
    carries_a_card,
)


def backbone(model: PreTrainedModel) -> Backbone:
    """The model as `load_backbone` would give it, without a tokenizer."""
    cpu = torch.device("cpu")
    return Backbone(model, None, head_of(model), OneLabel(), shape_of(model), model.dtype, cpu)


def train(on: Backbone, config: PeftConfig, batch: dict[str, Tensor]) -> tuple[Trained, Tensor]:
    """Made-up training: the tensors far from their start, and the logits with them."""
    attached = attach(
        on.model, config, modules_to_save=on.modules_to_save, examples=examples(on.model)
    )
    stir(attached)
    with torch.no_grad():
        expected = logits(on.model, batch)
    state = {name: tensor.clone() for name, tensor in attached.state_dict().items()}
    attached.detach()
    return Trained(on, config, state), expected


def _trained(
    architecture: str, names: Iterable[str] | None = None
) -> list[tuple[str, Trained, Tensor]]:
    """Mixes that the architecture admits, trained: the name, itself, its logits."""
    on = backbone(tiny(architecture))
    has_bias = any(linear.bias for linear in on.shape.layers[0].linears)
    chosen = {name: MIXES[name] for name in names or MIXES}
    mixes = {
        name: config
        for name, config in chosen.items()
        if has_bias or all(p.method != "bitfit" for p in config.placements)
    }
    return [(name, *train(on, config, inputs(architecture))) for name, config in mixes.items()]


def exported(
    format: str,
    trained: Trained,
    output: Path,
    *,
    overwrite: bool = False,
    uniform: bool | None = None,
) -> Path:
    """The folder into which a training has been written."""
    return export(format, trained, output, FACTS, overwrite=overwrite, uniform=uniform)
