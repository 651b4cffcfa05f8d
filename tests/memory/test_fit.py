from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, MPNetConfig

from autopeft.core.config import PeftConfig, Placement
from autopeft.core.errors import StudyError
from autopeft.core.settings import BackboneSettings
from autopeft.memory.fit import Fit, fit
from autopeft.memory.predict import predict_memory
from autopeft.memory.quantities import Setting
from autopeft.method.sites import shape_of
from autopeft.model.backbone import Backbone, head_of, meta_backbone
from autopeft.model.head import OneLabel
from tests.memory.test_answering import MODELS
from tests.memory.test_predict import both, mix
from tests.minilm import MINILM

OPTIONS = {"targets": ("q", "v"), "r": 8, "lora_alpha": None, "lora_dropout": 0.0}
LENGTH = 64


@pytest.fixture(scope="module")
def minilm() -> Backbone:
    return meta_backbone(MINILM, BackboneSettings(dtype="float32"))


def config(batch_size: int = 12, **backbone: Any) -> PeftConfig:
    placed = [Placement.of("lora", range(6), OPTIONS)]
    return PeftConfig.of(placed, {"learning_rate": 2e-3, "batch_size": batch_size}, backbone)


def peak(backbone: Backbone, config: PeftConfig, device: str = "cuda") -> int:
    size = dict(config.train)["batch_size"]
    return predict_memory(
        backbone, config, batch_size=size, sequence_length=LENGTH, device=device
    ).peak


def fitted(backbone: Backbone, limit: float, device: str = "cuda", **options: Any) -> Fit:
    return fit(Setting(backbone, LENGTH, device), config(**options), limit)


def changes(found: Fit, **options: Any) -> Mapping[str, Any]:
    before = config(**options)
    pairs = {*found.config.train, *found.config.backbone} - {*before.train, *before.backbone}
    return dict(pairs)


def with_changes(train: Mapping[str, Any], backbone: Mapping[str, Any]) -> PeftConfig:
    base = config()
    return PeftConfig.of(base.placements, {**dict(base.train), **train}, backbone)


def test_what_fits_stays_as_it_is(minilm: Backbone) -> None:
    limit = peak(minilm, config())
    assert fitted(minilm, limit) == Fit(config(), fitted(minilm, 1e12).memory, True)
    assert changes(fitted(minilm, limit - 1))["gradient_accumulation_steps"] == 2


@pytest.mark.parametrize("steps", [2, 3, 4, 6, 12])
def test_the_largest_micro_batches_that_fit(minilm: Backbone, steps: int) -> None:
    micro = {"batch_size": 12 // steps, "gradient_accumulation_steps": steps}
    limit = peak(minilm, with_changes(micro, {}))
    found = fitted(minilm, limit)
    assert found.fits
    assert found.memory.peak == limit
    assert changes(found) == micro


def test_more_is_tried_in_the_order_of_its_cost(minilm: Backbone) -> None:
    """The limit sinks just below each result, so every setting that helps has its turn."""
    one = config(batch_size=1)
    setting = Setting(minilm, 256, "cuda")
    found, forms = fit(setting, one, 1e12), []
    while found.fits:
        forms.append(dict(found.config.backbone))
        found = fit(setting, one, found.memory.peak - 1)
    assert forms[:2] == [{}, {"gradient_checkpointing": True}]
    order = [form.get("quantization", "none") for form in forms]
    assert order == sorted(order, key=["none", "int8", "nf4"].index)
    assert order[-1] == "nf4"
    assert found.config.backbone == tuple(sorted(forms[-1].items()))


def test_what_is_there_is_only_added_to(minilm: Backbone) -> None:
    form = {"gradient_checkpointing": True, "quantization": "int8"}
    found = fitted(minilm, 1, **form)
    assert not found.fits
    kept = dict(found.config.backbone)
    assert kept["gradient_checkpointing"] is True
    assert kept["quantization"] in ("int8", "nf4")


def test_accumulation_that_is_there_is_multiplied(minilm: Backbone) -> None:
    base = with_changes({"gradient_accumulation_steps": 5}, {})
    limit = peak(minilm, with_changes({"batch_size": 1, "gradient_accumulation_steps": 2}, {}))
    found = fit(Setting(minilm, LENGTH, "cuda"), base, limit)
    train = dict(found.config.train)
    assert train["batch_size"] * train["gradient_accumulation_steps"] == 60


def test_what_a_model_does_not_support_is_not_tried() -> None:
    with torch.device("meta"):
        model = AutoModelForSequenceClassification.from_config(MPNetConfig()).eval()
    parts = (head_of(model), OneLabel(), shape_of(model), torch.float32, torch.device("meta"))
    found = fit(Setting(Backbone(model, None, *parts), LENGTH, "cuda"), config(), 1)
    assert not found.fits
    assert dict(found.config.backbone) == {"activation_offloading": True, "quantization": "nf4"}
    with pytest.raises(StudyError, match="does not support it"):
        peak(Backbone(model, None, *parts), config(gradient_checkpointing=True))


def test_nothing_is_offloaded_from_a_cpu(minilm: Backbone) -> None:
    found = fitted(minilm, 1, device="cpu")
    assert not found.fits
    assert "activation_offloading" not in dict(found.config.backbone)
    assert found.memory.peak <= peak(minilm, config(), "cpu")


def test_answers_are_to_fit_as_well() -> None:
    """A limit that steps keep and long answers do not."""
    meta, _ = both(*MODELS["deep"])
    placed = mix("lora", range(7, 8)).placements
    one = PeftConfig.of(placed, {"batch_size": 1})
    steps, answers = (Setting(meta, LENGTH, "cpu", new_tokens=n) for n in (0, 192))
    step = steps.memory(one).peak
    assert fit(steps, one, step) == Fit(one, steps.memory(one), True)
    found = fit(answers, one, step)
    assert found.memory == answers.memory(found.config)
    assert found.fits
    assert dict(found.config.backbone)["quantization"] == "int8"
    assert step < answers.memory(one).peak
