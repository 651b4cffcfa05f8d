from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from autopeft.core.order import Order
from autopeft.core.report import Report
from autopeft.core.settings import TrainSettings
from autopeft.model.head import OneLabel
from autopeft.task.batches import Encoded
from autopeft.train.descent import Descent

N_EXAMPLES, N_LABELS = 22, 3
LENGTHS = torch.arange(1, N_EXAMPLES + 1)
INPUTS = torch.randn(N_EXAMPLES, 5, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(N_EXAMPLES) % N_LABELS
EXAMPLES = Encoded("train", {}, {}, LENGTHS, LABELS)


def weight() -> nn.Parameter:
    return nn.Parameter(torch.zeros(N_LABELS, 5))


def descent(parameter: nn.Parameter, rungs: tuple[float, ...] = (2.0,), **options) -> Descent:
    settings = TrainSettings(learning_rate=0.1, warmup_ratio=0.0, **options)
    groups = {settings.learning_rate: [parameter]}
    return Descent(groups, EXAMPLES, OneLabel(), settings, Order(rungs))


def go(what: Descent, parameter: nn.Parameter) -> torch.Tensor:
    """One micro-batch of a linear classifier; its rows."""
    rows = what.rows
    loss = what.loss(F.linear(INPUTS[rows], parameter), LABELS[rows])
    loss.backward()
    what.learn(loss, seconds=0.5)
    return rows


def test_micro_batches_add_up_to_the_gradient_of_the_batch() -> None:
    parameter, seen = weight(), []
    what = descent(parameter, batch_size=4, gradient_accumulation_steps=3)
    for _ in range(3):
        rows = what.rows
        seen.append(rows)
        loss = what.loss(F.linear(INPUTS[rows], parameter), LABELS[rows])
        loss.backward()
        gradient = parameter.grad.clone()
        what.learn(loss, seconds=0.0)
    rows = torch.cat(seen)
    again = weight()
    F.cross_entropy(F.linear(INPUTS[rows], again), LABELS[rows]).backward()
    assert torch.allclose(gradient, again.grad, atol=1e-7)
    assert what.step == 1
    assert parameter.grad is None


def test_the_last_batch_of_an_epoch_has_what_is_left() -> None:
    parameter = weight()
    what = descent(parameter, (1.0, 2.0), batch_size=4, gradient_accumulation_steps=4)
    rows = torch.cat([go(what, parameter) for _ in range(6)])
    assert sorted(rows.tolist()) == list(range(N_EXAMPLES))
    assert what.step == 2
    assert what.is_at_rung
    assert not what.is_at_last_rung
    report = what.report()
    assert report["train_seconds"] == pytest.approx(3.0)
    assert report["train_loss"] == pytest.approx(math.log(N_LABELS), abs=0.2)
    assert what.is_at_last_rung
    assert not what.is_at_rung


def test_what_trains_nothing_reports_once() -> None:
    what = Descent({0.1: []}, EXAMPLES, OneLabel(), TrainSettings(), Order((1.0, 3.0, 9.0)))
    assert what.is_at_rung
    assert what.is_at_last_rung
    assert what.rung == 9.0
    assert Report(what.step, what.rung, what.report()).trains_nothing
    parameter = weight()
    trained = descent(parameter, (1.0, 2.0))
    while not trained.is_at_rung:
        go(trained, parameter)
    assert trained.report()["trained_elements"] == 5 * N_LABELS


def test_a_batch_that_is_forgotten_begins_anew() -> None:
    parameter, undisturbed = weight(), weight()
    what = descent(parameter, batch_size=4, gradient_accumulation_steps=2)
    other = descent(undisturbed, batch_size=4, gradient_accumulation_steps=2)
    first = go(what, parameter)
    what.forget()
    assert torch.equal(what.rows, first)
    for _ in range(4):
        go(what, parameter)
        go(other, undisturbed)
    assert torch.equal(parameter, undisturbed)
    assert what.step == other.step == 2


def test_a_loss_that_is_no_number_ends_it_at_its_step() -> None:
    parameter = weight()
    what = descent(parameter, (1.0,), batch_size=8)
    go(what, parameter)
    with torch.no_grad():
        parameter.fill_(math.nan)
    with pytest.raises(RuntimeError, match="loss is nan at step 2"):
        _ = [go(what, parameter) for _ in range(2)]


def test_every_group_of_tensors_learns_at_its_own_rate() -> None:
    slow, fast = weight(), weight()
    settings = TrainSettings(learning_rate=0.01, warmup_ratio=0.0, lr_scheduler_type="constant")
    groups = {0.01: [slow], 0.2: [fast]}
    what = Descent(groups, EXAMPLES, OneLabel(), settings, Order((1.0,)))
    rows = what.rows
    loss = what.loss(F.linear(INPUTS[rows], slow + fast), LABELS[rows])
    loss.backward()
    what.learn(loss, seconds=0.0)
    moved = [parameter.detach().abs().max().item() for parameter in (slow, fast)]
    assert moved == pytest.approx([0.01, 0.2], rel=1e-3)  # Adam's first step is the rate
    while not what.is_at_rung:
        go(what, slow)
    assert what.report()["learning_rate"] == 0.01
