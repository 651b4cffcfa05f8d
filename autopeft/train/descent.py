"""The optimisation of one attached configuration."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from autopeft.core.budget import Budget
from autopeft.method.attach import Attached
from autopeft.space.settings import TrainSettings
from autopeft.train.backbone import Backbone
from autopeft.train.batches import Batch, Encoded, shuffled

_CHECK_EVERY = 16


class Descent:
    """AdamW on the tensors of a configuration, from rung to rung.

    The random state of torch is the descent's own between its rungs, so that whatever runs in
    between neither disturbs it nor is disturbed.

    Args:
        attached: the configuration; its `trainable` tensors are optimised.
        backbone: what it is attached to.
        split: training examples.
        settings: learning rate, schedule, batch size.
        budget: its last rung sets the length of the schedule, its seed the order and the dropout.
    """

    def __init__(
        self,
        attached: Attached,
        backbone: Backbone,
        split: Encoded,
        settings: TrainSettings,
        budget: Budget,
    ) -> None:
        self.step = 0
        self._model, self._device = backbone.model, backbone.device
        self._split, self._settings = split, settings
        self._epoch = math.ceil(len(split) / settings.batch_size)
        self._total = self._steps(budget.rungs[-1])
        self._parameters = list(attached.trainable().values())
        self._optimizer = torch.optim.AdamW(
            self._parameters,
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
            fused=self._device.type == "cpu" or None,
        )
        order = torch.Generator().manual_seed(budget.seed)
        self._batches = shuffled(split.lengths, settings.batch_size, order)
        self._random = _RandomState(budget.seed)

    def until(self, epochs: float) -> dict[str, float]:
        """Trains up to `epochs` in all, at least one step; the means of that and its seconds.

        Raises:
            RuntimeError: the loss is no longer finite.
        """
        start, first = time.perf_counter(), self.step
        losses: list[Tensor] = []
        self._model.train()
        with self._random.own():
            while not losses or self.step < self._steps(epochs):
                batch = self._split.batch(next(self._batches), self._device)
                losses.append(self._descend(batch))
                if self.step % _CHECK_EVERY == 0:
                    _check(losses, first)
        _check(losses, first)
        seconds = time.perf_counter() - start
        return {
            "train_loss": torch.stack(losses).mean().item(),
            "learning_rate": self._optimizer.param_groups[0]["lr"],
            "train_seconds": seconds,
            "epoch_seconds": seconds / len(losses) * self._epoch,
        }

    def _steps(self, epochs: float) -> int:
        return max(1, round(epochs * self._epoch))

    def _descend(self, batch: Batch) -> Tensor:
        """One step; its loss, a scalar."""
        rate = self._settings.learning_rate * self._factor()
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        logits = self._model(**batch.inputs).logits.float()
        smoothing = self._settings.label_smoothing_factor
        loss = F.cross_entropy(logits, batch.labels, label_smoothing=smoothing)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._parameters, self._settings.max_grad_norm)
        self._optimizer.step()
        self._optimizer.zero_grad()
        self.step += 1
        return loss.detach()

    def _factor(self) -> float:
        """The share of the learning rate at the coming step: a ramp, then the schedule."""
        warmup = math.ceil(self._settings.warmup_ratio * self._total)
        if self.step < warmup:
            return (self.step + 1) / (warmup + 1)
        done = min(1.0, (self.step - warmup) / max(1, self._total - warmup))
        if self._settings.lr_scheduler_type == "linear":
            return 1 - done
        if self._settings.lr_scheduler_type == "cosine":
            return 0.5 * (1 + math.cos(math.pi * done))
        return 1.0


def _check(losses: list[Tensor], first: int) -> None:
    finite = torch.stack(losses).isfinite().tolist()
    if not all(finite):
        index = finite.index(False)
        value = losses[index].item()
        raise RuntimeError(f"training diverged: loss is {value} at step {first + index + 1}")


class _RandomState:
    """A state of torch's global generators that is put in place for a while."""

    def __init__(self, seed: int) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self._state = _current()

    @contextmanager
    def own(self) -> Iterator[None]:
        """Inside the block the generators go on from where the last block left them."""
        with torch.random.fork_rng():
            _put(self._state)
            yield
            self._state = _current()


def _current() -> Any:
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return torch.get_rng_state(), cuda


def _put(state: Any) -> None:
    cpu, cuda = state
    torch.set_rng_state(cpu)
    if cuda:
        torch.cuda.set_rng_state_all(cuda)
