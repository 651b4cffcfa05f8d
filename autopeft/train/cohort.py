"""Configurations that train side by side on one backbone, each at its own pace."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import torch
from safetensors import SafetensorError

from autopeft.core.report import Failure, Report
from autopeft.method.member import Member
from autopeft.task.batches import Encoded
from autopeft.train.evaluation import evaluate
from autopeft.train.passes import Passes
from autopeft.train.trainee import Trainee

EARLY = 256
"""Validation examples before the last rung, whose decisions need no more."""


class Cohort:
    """Trainees whose micro-batches share every forward and backward pass.

    Gradients, steps and failures of a trainee are those of training alone; dropout is other
    random numbers. Where the device has no memory for all, half of them rest until the others
    have ended.

    Args:
        passes: of the backbone.
        splits: `train` and `validation`.
    """

    def __init__(self, passes: Passes, splits: Mapping[str, Encoded]) -> None:
        self._passes, self._splits = passes, splits
        self._active: list[Trainee] = []
        self._resting: list[Trainee] = []
        self._most: float = float("inf")
        self._began = 0.0

    def __len__(self) -> int:
        return len(self._active) + len(self._resting)

    @property
    def has_room(self) -> bool:
        """Whether one more can be on the backbone; some architectures take a single one."""
        return not self._active or self._passes.pack.takes_several

    def join(self, trainee: Trainee) -> None:
        """Takes in a trainee, at once or as soon as there is memory."""
        if len(self._active) < self._most:
            self._passes.pack.join(trainee.member)
            self._active.append(trainee)
        else:
            self._resting.append(trainee)

    def leave(self, number: int) -> None:
        """Ends a trainee; one that is unknown or has ended is none."""
        self._resting = [trainee for trainee in self._resting if trainee.number != number]
        for trainee in self._active:
            if trainee.number == number:
                self._passes.pack.leave(trainee.member)
        self._active = [trainee for trainee in self._active if trainee.number != number]

    def close(self) -> None:
        """Takes everyone off the backbone."""
        self._passes.pack.close()
        self._passes.backbone.model.eval()
        self._active, self._resting = [], []

    def advance(self) -> list[Report | Failure]:
        """Trains until some trainee reports or fails; those that end leave."""
        while self._resting and len(self._active) < self._most:
            self.join(self._resting.pop(0))
        events: list[Report | Failure] = []
        self._passes.backbone.model.train()
        self._began = time.perf_counter()
        with self._active[0].randomness.own():
            while not events and not any(t.descent.is_at_rung for t in self._active):
                events += self._try_step()
        for trainee in [t for t in self._active if t.descent.is_at_rung]:
            events.append(self._report(trainee))
        return events

    def _try_step(self) -> list[Failure]:
        try:
            return self._step()
        except torch.OutOfMemoryError:
            if len(self._active) == 1:
                raise
        self._rest(self._active[len(self._active) // 2 :])
        return []

    def _step(self) -> list[Failure]:
        """One micro-batch of every active trainee; those that cannot go on."""
        rows = [trainee.descent.rows for trainee in self._active]
        sizes = [len(own) for own in rows]
        logits, labels = self._passes.logits(self._splits["train"], torch.cat(rows), sizes)
        shares = zip(self._active, logits.split(sizes), labels.split(sizes), strict=True)
        losses = [trainee.descent.loss(own, wanted) for trainee, own, wanted in shares]
        torch.stack(losses).sum().backward()
        seconds = self._lap() / sum(sizes)
        failures = []
        for trainee, loss, size in zip(list(self._active), losses, sizes, strict=True):
            try:
                trainee.descent.learn(loss, seconds * size)
            except RuntimeError as error:
                failures.append(self._failed(trainee, error))
        return failures

    def _failed(self, trainee: Trainee, error: Exception) -> Failure:
        self.leave(trainee.number)
        return Failure(trainee.number, f"{type(error).__name__}: {error}")

    def _lap(self) -> float:
        """Seconds since the last lap, in which optimizers of the step before took theirs too."""
        before, self._began = self._began, time.perf_counter()
        return self._began - before

    def _rest(self, trainees: Sequence[Trainee]) -> None:
        """Lets some wait; the others begin their batch anew."""
        for trainee in trainees:
            self.leave(trainee.number)
        for trainee in (*self._active, *trainees):
            trainee.descent.forget()
        self._resting = [*trainees, *self._resting]
        self._most = len(self._active)

    def _report(self, trainee: Trainee) -> Report | Failure:
        descent = trainee.descent
        rung, last = descent.rung, descent.is_at_last_rung
        metrics = descent.report()
        try:
            metrics |= self._validate(trainee.member, last)
            trainee.keep()
        except torch.OutOfMemoryError:
            raise
        except (OSError, RuntimeError, SafetensorError) as error:
            return self._failed(trainee, error)
        if last:
            self.leave(trainee.number)
        return Report(descent.step, rung, metrics, trainee.number)

    def _validate(self, member: Member, last: bool) -> dict[str, float]:
        """The metrics on all validation examples, or on some that are the same for everyone."""
        start, split = time.perf_counter(), self._splits["validation"]
        n_examples = len(split) if last else min(EARLY, len(split))
        rows = torch.linspace(0, len(split) - 1, n_examples).round().long()
        measured = evaluate(self._passes, member, split, rows)
        measured["validation_loss"] = measured.pop("loss")
        measured["n_validation"] = measured.pop("n_examples")
        return {**measured, "eval_seconds": time.perf_counter() - start}
