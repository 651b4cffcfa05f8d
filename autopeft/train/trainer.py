"""Trains configurations on a frozen backbone and reports how they do."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from autopeft.core.budget import Budget
from autopeft.core.config import PeftConfig
from autopeft.core.report import Report
from autopeft.method.attach import Attached, attach
from autopeft.space.settings import BackboneSettings, TrainSettings
from autopeft.train.backbone import Backbone, load_backbone, load_tokenizer, target_device
from autopeft.train.batches import Encoded
from autopeft.train.descent import Descent
from autopeft.train.evaluation import evaluate
from autopeft.train.tables import SPLITS
from autopeft.train.task import Task

STATE_FILE = "peft.safetensors"


class Trainer:
    """Evaluates configurations by training them; the backbone and the data stay loaded.

    Calling it with configurations and a budget yields, configuration by configuration, one
    report a rung. Its metrics are those of `METRICS` on the validation split,
    `validation_loss`, `n_validation` (examples), `train_loss` (mean since the last report),
    `learning_rate` (of the last step), `train_seconds`, `epoch_seconds` (mean of an epoch, both
    without evaluation) and `eval_seconds`. The same seed gives the same numbers; closing the
    iterator takes the configuration off the backbone.

    Args:
        reference: the backbone, see `load_backbone`.
        task: what is trained.
        device: `auto`, or a name of torch.
        threads: of torch in this process; None leaves them as they are.

    Raises:
        StudyError: the data or the backbone cannot be used.
    """

    def __init__(
        self, reference: str, task: Task, *, device: str = "auto", threads: int | None = None
    ) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        self.reference = reference
        self.task = task
        self.device = target_device(device)
        data = task.load()
        tokenizer = load_tokenizer(reference)
        self.label_names = data.label_names
        self._splits = {
            split: Encoded.of(getattr(data, split), tokenizer, task.max_length) for split in SPLITS
        }
        self._backbones: OrderedDict[BackboneSettings, Backbone] = OrderedDict()

    def __call__(
        self, configs: Sequence[PeftConfig], budget: Budget
    ) -> Generator[Report, None, None]:
        for member, config in enumerate(configs):
            yield from self._train(config, budget, member)

    def score(
        self, config: PeftConfig, state: Mapping[str, Tensor], split: str = "test"
    ) -> dict[str, float]:
        """The metrics of saved tensors on `split`, with `loss` and `n_examples`.

        Raises:
            AttachError: `state` does not belong to `config`.
        """
        backbone = self._backbone(config)
        attached = attach(backbone.model, config, modules_to_save=backbone.modules_to_save)
        try:
            attached.load_state_dict(state)
            return evaluate(backbone, self._splits[split])
        finally:
            attached.detach()

    def _train(self, config: PeftConfig, budget: Budget, member: int) -> Iterator[Report]:
        backbone = self._backbone(config)
        attached = attach(
            backbone.model,
            config,
            modules_to_save=backbone.modules_to_save,
            seed=budget.seed,
        )
        settings = TrainSettings(**dict(config.train))
        try:
            descent = Descent(attached, backbone, self._splits["train"], settings, budget)
            for rung in budget.rungs:
                trained = descent.until(rung)
                metrics = {**trained, **self._validate(backbone)}
                if rung == budget.rungs[-1] and budget.folder is not None:
                    save(attached, Path(budget.folder))
                yield Report(descent.step, rung, metrics, member)
        finally:
            attached.detach()
            backbone.model.eval()

    def _validate(self, backbone: Backbone) -> dict[str, float]:
        start = time.perf_counter()
        measured = evaluate(backbone, self._splits["validation"])
        measured["validation_loss"] = measured.pop("loss")
        measured["n_validation"] = measured.pop("n_examples")
        return {**measured, "eval_seconds": time.perf_counter() - start}

    def _backbone(self, config: PeftConfig) -> Backbone:
        """The backbone of a configuration; on an accelerator only the last one is kept."""
        settings = BackboneSettings(**dict(config.backbone))
        if settings not in self._backbones:
            while len(self._backbones) >= (2 if self.device.type == "cpu" else 1):
                self._backbones.popitem(last=False)
            self._backbones[settings] = load_backbone(
                self.reference,
                self.task.type,
                settings,
                n_labels=len(self.label_names),
                device=str(self.device),
            )
        self._backbones.move_to_end(settings)
        return self._backbones[settings]


def save(attached: Attached, folder: Path) -> None:
    """Writes the trained tensors into `folder`, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: t.cpu().contiguous() for name, t in attached.state_dict().items()}
    unfinished = folder / f".{STATE_FILE}"
    save_file(state, unfinished)
    unfinished.replace(folder / STATE_FILE)
