"""A backbone with its data, lent to whoever trains on it in a way of his own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from autopeft.core.config import PeftConfig
from autopeft.core.errors import AttachError
from autopeft.method.member import Member, draw
from autopeft.method.start import starts_from_data
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

    def drawn(self, config: PeftConfig, seed: int) -> Member:
        """The fresh tensors of a configuration.

        Raises:
            AttachError: a placement starts from training examples.
        """
        backbone = self.passes.backbone
        modules = backbone.modules_to_save
        member = draw(backbone.model, config, modules_to_save=modules, seed=seed)
        if any(map(starts_from_data, member.sites)):
            raise AttachError("a placement starts from training examples, and none are read here")
        return member

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
