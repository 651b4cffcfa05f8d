"""Configurations that train side by side on one backbone, each at its own pace."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from autopeft.core.report import TEST, Failure, Report, described, fault_of
from autopeft.method.member import Member
from autopeft.method.start import start, starts_from_data
from autopeft.task.batches import Encoded
from autopeft.train.evaluation import Measure, evaluate
from autopeft.train.member_training import MemberTraining
from autopeft.train.passes import Passes
from autopeft.train.randomness import Randomness

EARLY = 256
"""Validation examples before the last rung, whose decisions need no more."""


class PackTraining:
    """Members in training, whose micro-batches share every forward and backward pass.

    Gradients, steps and failures of a member are those of training alone; dropout is other
    random numbers. Where the device has no memory for all, half of them rest until the others
    have ended.

    Args:
        passes: of the backbone.
        splits: `train`, `validation`, and `test` for orders that ask for it.
        measure: of the task.
    """

    def __init__(self, passes: Passes, splits: Mapping[str, Encoded], measure: Measure) -> None:
        self._passes, self._splits, self._measure = passes, splits, measure
        self._active: list[MemberTraining] = []
        self._resting: list[MemberTraining] = []
        self._most: float = float("inf")
        self._began = 0.0

    def __len__(self) -> int:
        return len(self._active) + len(self._resting)

    @property
    def has_room(self) -> bool:
        """Whether one more can be on the backbone; some architectures take a single one."""
        return not self._active or self._passes.pack.takes_several

    def join(self, member: MemberTraining) -> None:
        """Takes in a member, at once or as soon as there is memory."""
        if len(self._active) < self._most:
            self._passes.pack.join(member.tensors)
            self._active.append(member)
            self._start(member)
        else:
            self._resting.append(member)

    def _start(self, member: MemberTraining) -> None:
        """Lets tensors start from some examples, which the seed chooses, each without padding."""
        tensors, split = member.tensors, replace(self._splits["train"], multiple=1)
        if member.descent.step or not any(map(starts_from_data, tensors.sites)):
            return
        generator = torch.Generator().manual_seed(member.order.seed)
        rows = torch.randperm(len(split), generator=generator)
        sizes = [int(other is tensors) for other in self._passes.pack.members]

        def losses() -> Iterator[Tensor]:
            for row in rows.split(1):
                outputs, targets = self._passes.outputs(split, row, sizes)
                yield self._passes.criterion.losses(outputs, targets).sum()

        try:
            with Randomness(member.order.seed).resumed():
                start(self._passes.backbone.model, tensors.sites, losses)
        except Exception:
            self.leave(member.number)
            raise

    def leave(self, number: int) -> None:
        """Ends a member; one that is unknown or has ended is none."""
        self._resting = [member for member in self._resting if member.number != number]
        for member in self._active:
            if member.number == number:
                self._passes.pack.leave(member.tensors)
        self._active = [member for member in self._active if member.number != number]

    def close(self) -> None:
        """Takes everyone off the backbone."""
        self._passes.pack.close()
        self._passes.backbone.model.eval()
        self._active, self._resting = [], []

    def advance(self) -> list[Report | Failure]:
        """Trains until some member reports or fails; those that end leave.

        What goes wrong with all of them is the failure of each.
        """
        try:
            failures = self._train()
        except Exception as error:
            numbers = [member.number for member in self._active]
            failures = Failure.of_all(numbers, described(error), fault_of(error))
            for failure in failures:
                self.leave(failure.member)
        return [*failures, *map(self._report, [m for m in self._active if m.descent.is_at_rung])]

    def _train(self) -> list[Failure]:
        """Steps until some member is at a rung, or cannot go on."""
        while self._resting and len(self._active) < self._most:
            self.join(self._resting.pop(0))
        failures: list[Failure] = []
        self._passes.backbone.model.train()
        self._began = time.perf_counter()
        with self._active[0].randomness.resumed():
            while not failures and not any(m.descent.is_at_rung for m in self._active):
                failures = self._try_step()
        return failures

    def _try_step(self) -> list[Failure]:
        try:
            return self._step()
        except torch.OutOfMemoryError:
            if len(self._active) == 1:
                raise
        self._rest(self._active[len(self._active) // 2 :])
        return []

    def _step(self) -> list[Failure]:
        """One micro-batch of every active member; those that cannot go on."""
        rows = [member.descent.rows for member in self._active]
        sizes = [len(each) for each in rows]
        outputs, targets = self._passes.outputs(self._splits["train"], torch.cat(rows), sizes)
        shares = zip(self._active, outputs.split(sizes), targets.split(sizes), strict=True)
        losses = [member.descent.loss(given, wanted) for member, given, wanted in shares]
        torch.stack(losses).sum().backward()
        seconds = self._lap() / sum(sizes)
        failures = []
        for member, loss, size in zip(list(self._active), losses, sizes, strict=True):
            try:
                member.descent.learn(loss, seconds * size)
            except RuntimeError as error:
                failures.append(self._failed(member, error))
        return failures

    def _failed(self, member: MemberTraining, error: Exception) -> Failure:
        self.leave(member.number)
        return Failure.of(member.number, error)

    def _lap(self) -> float:
        """Seconds since the last lap, in which optimizers of the step before took theirs too."""
        before, self._began = self._began, time.perf_counter()
        return self._began - before

    def _rest(self, members: Sequence[MemberTraining]) -> None:
        """Lets some wait; the others begin their batch anew."""
        for member in members:
            self.leave(member.number)
        for member in (*self._active, *members):
            member.descent.forget()
        self._resting = [*members, *self._resting]
        self._most = len(self._active)

    def _report(self, member: MemberTraining) -> Report | Failure:
        descent = member.descent
        rung, last = descent.rung, descent.is_at_last_rung
        try:
            metrics = {**descent.report(), **self._validate(member.tensors, last)}
            if last and member.order.tests:
                metrics |= self._test(member.tensors)
            member.keep(rung)
        except Exception as error:
            return self._failed(member, error)
        if last:
            self.leave(member.number)
        return Report(descent.step, rung, metrics, member.number)

    def _validate(self, tensors: Member, last: bool) -> dict[str, float]:
        """The metrics on all validation examples, or on some that are the same for everyone."""
        start, split = time.perf_counter(), self._splits["validation"]
        rows = split.evenly(len(split) if last else EARLY)
        measured = evaluate(self._passes, tensors, split, rows, self._measure)
        measured["validation_loss"] = measured["loss"]
        measured["n_validation"] = measured.pop("n_examples")
        return {**measured, "eval_seconds": time.perf_counter() - start}

    def _test(self, tensors: Member) -> dict[str, float]:
        """The metrics on all examples of the test split."""
        split = self._splits["test"]
        measured = evaluate(self._passes, tensors, split, torch.arange(len(split)), self._measure)
        return {f"{TEST}{name}": value for name, value in measured.items()}
