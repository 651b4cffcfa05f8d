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
from autopeft.train.peak import Peak
from autopeft.train.randomness import Randomness
from autopeft.train.shortage import failure_of, free, is_short

EARLY = 256
"""Validation examples before the last rung, whose decisions need no more."""


class PackTraining:
    """Members in training, whose micro-batches share every forward and backward pass.

    Gradients, steps and failures of a member are those of training alone; dropout is other
    random numbers. Where the device has no memory for all, half of them rest until the others
    have ended; one for which it has none alone has failed.

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
        self._peak = Peak(passes.backbone.device)

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
            events: list[Report | Failure] = [*self._train()]
        except Exception as error:
            return [*self._all_failed(error)]
        for member in [member for member in self._active if member.descent.is_at_rung]:
            if member in self._active:  # else it rests by now
                events.append(self._report(member))
        return events

    def _all_failed(self, error: Exception) -> list[Failure]:
        if len(self._active) == 1:
            return [self._failed(self._active[0], error)]
        numbers = [member.number for member in self._active]
        for number in numbers:
            self.leave(number)
        return Failure.of_all(numbers, described(error), fault_of(error))

    def _train(self) -> list[Failure]:
        """Steps until some member is at a rung, or cannot go on."""
        failures: list[Failure] = []
        while self._resting and len(self._active) < self._most:
            failures += self._wake(self._resting.pop(0))
        self._passes.backbone.model.train()
        self._began = time.perf_counter()
        if not self._active:
            return failures
        self._peak.begin(is_alone=len(self) == 1)
        with self._active[0].randomness.resumed():
            while not failures and not any(m.descent.is_at_rung for m in self._active):
                failures = self._try_step()
        return failures

    def _wake(self, member: MemberTraining) -> list[Failure]:
        """Takes in a member that rests, which rests on where there is no memory beside others."""
        try:
            self.join(member)
        except Exception as error:
            if self._is_alone(member) or not is_short(error):
                return [self._failed(member, error)]
            self._rest([member])
        return []

    def _try_step(self) -> list[Failure]:
        try:
            return self._step()
        except Exception as error:
            if len(self._active) == 1 or not is_short(error):
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
            except Exception as error:
                failures.append(self._failed(member, error))
        return failures

    def _failed(self, member: MemberTraining, error: Exception) -> Failure:
        """What an error is to a member; what is too much beside others is tried again."""
        is_alone, device = self._is_alone(member), self._passes.backbone.device
        self.leave(member.number)
        if is_short(error) and not is_alone:
            self._most = len(self._active)
        config = member.tensors.config
        return failure_of(member.number, error, config, device, is_alone=is_alone)

    def _is_alone(self, member: MemberTraining) -> bool:
        return not any(other is not member for other in self._active)

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
        free()

    def _report(self, member: MemberTraining) -> Report | Failure:
        descent = member.descent
        rung, last = descent.rung, descent.is_at_last_rung
        try:
            metrics = {**descent.report(), **self._scores(member, last), **self._peak.measured()}
            member.keep(rung)
        except Exception as error:
            return self._failed(member, error)
        if last:
            self.leave(member.number)
        return Report(descent.step, rung, metrics, member.number)

    def _scores(self, member: MemberTraining, last: bool) -> dict[str, float]:
        """The metrics that are due; the others rest where they leave no memory for that."""
        try:
            return self._scored(member, last)
        except Exception as error:
            if self._is_alone(member) or not is_short(error):
                raise
        self._rest([other for other in self._active if other is not member])
        return self._scored(member, last)

    def _scored(self, member: MemberTraining, last: bool) -> dict[str, float]:
        measured = self._validate(member.tensors, last)
        return measured | (self._test(member.tensors) if last and member.order.tests else {})

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
