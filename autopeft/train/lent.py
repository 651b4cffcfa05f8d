"""A backbone with its data, lent to whoever trains on it in a way of his own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from autopeft.method.member import Member
from autopeft.task.batches import Encoded
from autopeft.train.evaluation import Measure
from autopeft.train.passes import Passes


@dataclass(frozen=True)
class Lent:
    """What is needed to train and to judge.

    Attributes:
        passes: on the backbone, from its first layer on.
        train: the training split.
        validation: the validation split.
        measure: the metrics of the task.
    """

    passes: Passes
    train: Encoded
    validation: Encoded
    measure: Measure

    @contextmanager
    def carrying(self, member: Member, *, training: bool = False) -> Iterator[Member]:
        """Inside the block the member alone is on the backbone, which drops out in training."""
        model = self.passes.backbone.model
        self.passes.pack.join(member)
        model.train(training)
        try:
            yield member
        finally:
            model.eval()
            self.passes.pack.leave(member)
