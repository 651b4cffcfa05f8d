"""Configurations that a function of the user's own trains."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel

from autopeft.core.config import PeftConfig
from autopeft.core.errors import DivergenceError
from autopeft.core.order import Order
from autopeft.core.report import TEST, Failure, Report
from autopeft.core.settings import BackboneSettings, TrainSettings
from autopeft.method.attach import Attached, attach
from autopeft.model.backbone import Backbone, Reader, load_backbone
from autopeft.model.checkpoint import trust
from autopeft.model.precision import target_device
from autopeft.task.custom import Custom
from autopeft.train.member_training import check_finite, save_tensors
from autopeft.train.shortage import failure_of


@dataclass(frozen=True)
class Run:
    """One configuration that is to be trained.

    Attributes:
        model: with the configuration on it; what is trained are its parameters that want a
            gradient.
        reader: its tokenizer, or its processor of images.
        train: learning rate, batch size and the like, as the configuration has them.
        rungs: epochs after which numbers are due, ascending.
        seed: of everything that is random.
        tests: whether numbers of the test split are due at the last rung, each with `test_` before
            its name.
    """

    model: PreTrainedModel
    reader: Reader
    train: TrainSettings
    rungs: tuple[float, ...]
    seed: int
    tests: bool


@dataclass
class _Current:
    """The member in training.

    Attributes:
        left: rungs that are still due.
    """

    number: int
    config: PeftConfig
    order: Order
    attached: Attached
    reports: Iterator[Mapping[str, float]]
    left: list[float]

    @property
    def asked(self) -> tuple[int, PeftConfig, Order]:
        return self.number, self.config, self.order


class CustomTrainer:
    """Evaluates configurations, one after the other, by a function of the user's own.

    The report of a rung has the numbers that the function yields, those of the task among them,
    and the seconds that it took. A configuration that goes on from a rung begins anew and is silent
    up to it.

    Args:
        reference: the backbone, see `load_backbone`.
        task: with the function.
        device: `auto`, or a name of torch.
        threads: of torch in this process; None leaves them as they are.
        spread: the backbone over all CUDA devices of this process.
        trust_remote_code: whether code that comes with the backbone may run.
    """

    def __init__(
        self,
        reference: str,
        task: Custom,
        *,
        device: str = "auto",
        threads: int | None = None,
        spread: bool = False,
        trust_remote_code: bool = False,
    ) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        if trust_remote_code:
            trust(reference)
        self._reference, self._task = reference, task
        self._device, self._spread = device, spread
        self._function = task.call()
        self._backbone: tuple[BackboneSettings, Backbone] | None = None
        self._waiting: list[tuple[int, PeftConfig, Order]] = []
        self._current: _Current | None = None

    def join(self, member: int, config: PeftConfig, order: Order) -> None:
        """Takes in a configuration, which starts when those before it have ended."""
        self._waiting.append((member, config, order))

    def leave(self, member: int) -> None:
        """Ends a member; one that is unknown or has ended is none."""
        self._waiting = [each for each in self._waiting if each[0] != member]
        if self._current is not None and self._current.number == member:
            self._end()

    def advance(self) -> Sequence[Report | Failure]:
        """Trains until the member in training reports or fails; never raises."""
        if self._current is None and not self._waiting:
            return []
        current = self._current
        number, config, order = current.asked if current else self._waiting.pop(0)
        try:
            self._current = current or self._begun(number, config, order)
            return [self._next(self._current)]
        except Exception as error:  # whatever the function does, others go on
            self._end()
            return [failure_of(number, error, config, target_device(self._device))]

    def _begun(self, number: int, config: PeftConfig, order: Order) -> _Current:
        backbone = self._loaded(BackboneSettings(**dict(config.backbone)))
        assert backbone.reader is not None
        saved = backbone.modules_to_save
        settings = TrainSettings(**dict(config.train))
        attached = attach(backbone.model, config, modules_to_save=saved, seed=order.seed)
        run = Run(attached.model, backbone.reader, settings, order.rungs, order.seed, order.tests)
        torch.manual_seed(order.seed)
        try:
            reports = self._function(run)
        except Exception:
            attached.detach()
            raise
        return _Current(number, config, order, attached, reports, list(order.rungs))

    def _next(self, current: _Current) -> Report:
        """The report of the next rung that is due."""
        while True:
            rung, before = current.left[0], time.perf_counter()
            try:
                yielded = dict(next(current.reports))
            except StopIteration:
                reason = f"ended at {rung:g} of {current.order.rungs[-1]:g} epochs"
                raise RuntimeError(f"{self._task.function} {reason}") from None
            seconds = time.perf_counter() - before
            current.left.pop(0)
            if rung > current.order.reached:
                return self._report(current, rung, yielded, seconds)

    def _report(
        self, current: _Current, rung: float, yielded: Mapping[str, float], seconds: float
    ) -> Report:
        is_last = not current.left
        names = [*self._task.reports]
        if is_last and current.order.tests:
            names += [f"{TEST}{name}" for name in self._task.reports]
        for name in names:
            if not math.isfinite(yielded.get(name, math.nan)):
                got = yielded.get(name, "nothing")
                reason = f"must yield a finite {name!r} at {rung:g} epochs, got {got}"
                kind = DivergenceError if name in yielded else RuntimeError
                raise kind(f"{self._task.function} {reason}")
        done = current.order.rungs.index(rung)
        epochs = rung - (current.order.rungs[done - 1] if done else 0.0)
        times = {"train_seconds": seconds, "epoch_seconds": seconds / epochs, "eval_seconds": 0.0}
        if is_last:
            state = current.attached.state_dict()
            check_finite(state)
            if current.order.folder is not None:
                save_tensors(state, Path(current.order.folder), current.order.stamp)
            self._end()
        numbers = {name: float(value) for name, value in yielded.items()}
        return Report(done + 1, rung, {**numbers, **times}, current.number)

    def _end(self) -> None:
        """Takes the member off the backbone."""
        if self._current is not None:
            close = getattr(self._current.reports, "close", None)
            current, self._current = self._current, None
            try:
                if close is not None:
                    close()
            finally:
                current.attached.detach()

    def _loaded(self, settings: BackboneSettings) -> Backbone:
        if self._backbone is None or self._backbone[0] != settings:
            self._backbone = None
            backbone = load_backbone(
                self._reference,
                self._task.head,
                settings,
                n_labels=self._task.n_labels,
                device=self._device,
                spread=self._spread,
            )
            self._backbone = settings, backbone
        return self._backbone[1]
