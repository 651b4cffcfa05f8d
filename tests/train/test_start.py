"""Tensors that start from training examples, in a training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from autopeft.core.config import PeftConfig, Placement
from autopeft.core.order import Order
from autopeft.core.report import Failure, Report
from autopeft.train.passes import Passes
from autopeft.train.trainer import Trainer
from tests.minilm import exact

INDEX, A = "layers.4.sparse.self.q.index", "layers.5.lora.down.A"
EVA = {"targets": ("down",), "r": 4, "init_lora_weights": "eva"}
FISHER = {"targets": ("q",), "r": 2, "select": "fisher", "num_samples": 6}
CONFIG = PeftConfig.of(
    [Placement.of("lora", (4, 5), EVA), Placement.of("sparse", (4, 5), FISHER)],
    {"batch_size": 8},
    {"dtype": "float32"},
)


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autopeft.method.lora.EVA_EXAMPLES", 5)


def started(trainer: Trainer, seed: int = 0) -> Mapping[str, Tensor]:
    """The state of the configuration before its first step, beside whoever is in training."""
    trainer.join(9, CONFIG, Order((0.2,), seed))
    assert not trainer._admit()
    assert trainer._pack is not None
    state = trainer._pack._active[-1].tensors.state_dict()
    trainer.leave(9)
    return {name: tensor.clone() for name, tensor in state.items()}


def same(ones: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> bool:
    return all(torch.equal(tensor, others[name]) for name, tensor in ones.items())


def test_a_start_is_the_same_beside_others(still: Trainer) -> None:
    """The seed alone chooses the examples, which are not all that there are."""
    alone = started(still)
    still.join(0, exact([4]), Order((0.2, 0.5)))
    still.advance()
    assert same(alone, started(still))
    still.leave(0)
    other = started(still, seed=1)
    assert not torch.equal(alone[INDEX], other[INDEX])
    assert torch.allclose(alone[A] @ alone[A].T, torch.eye(4), atol=1e-4)


def test_training_goes_on_from_what_it_started_with(still: Trainer, tmp_path: Path) -> None:
    order = Order((0.2, 0.4), 1, str(tmp_path / "whole"), tests=True)
    *_, undisturbed = still([CONFIG], order)
    parts = replace(order, folder=str(tmp_path / "parts"))
    for rung in order.rungs:
        still.join(0, CONFIG, parts)
        (report,) = still.advance()
        assert isinstance(report, Report)
        still.leave(0)
        parts = replace(parts, reached=rung)
    assert report.metrics["test_loss"] == undisturbed.metrics["test_loss"]
    state = load_file(tmp_path / "whole" / "peft.safetensors")
    assert same(state, load_file(tmp_path / "parts" / "peft.safetensors"))
    assert torch.equal(state[INDEX], started(still, seed=1)[INDEX])
    assert still.score(CONFIG, state)["loss"] == undisturbed.metrics["test_loss"]


def test_a_start_that_fails_is_the_failure_of_that_member(
    still: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stumble(*_: object) -> None:
        raise LookupError("no pass")

    still.join(0, exact([4]), Order((0.2, 0.4)))
    still.advance()
    still.join(1, CONFIG, Order((0.2,)))
    with monkeypatch.context() as patched:
        patched.setattr(Passes, "outputs", stumble)
        assert still.advance() == [Failure(1, "LookupError: no pass")]
    (report,) = still.advance()
    assert isinstance(report, Report)
    assert still.advance() == []
