"""Trains configurations on a frozen backbone and reports how they do."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from autopeft.core.config import PeftConfig
from autopeft.core.order import Order
from autopeft.core.report import Failure, Report
from autopeft.core.settings import BackboneSettings, TrainSettings
from autopeft.method.member import draw
from autopeft.model.backbone import Backbone, load_backbone, load_reader
from autopeft.model.checkpoint import trust
from autopeft.model.lower_layers import can_start_above, starting_depth
from autopeft.model.precision import target_device
from autopeft.model.quicken import quicken
from autopeft.task.batches import check_embeddings
from autopeft.task.task import Task
from autopeft.task.tokens import Examples
from autopeft.train.descent import Descent
from autopeft.train.evaluation import evaluate
from autopeft.train.hidden import HiddenStates
from autopeft.train.lent import Lent
from autopeft.train.member_training import MemberTraining
from autopeft.train.pack_training import PackTraining
from autopeft.train.passes import Passes
from autopeft.train.randomness import Randomness
from autopeft.train.shortage import failure_of, free, is_short

CACHE = 2**30
"""Bytes of hidden states that a worker keeps, unless told otherwise."""


@dataclass(frozen=True)
class _Start:
    """Where passes begin, which members of a pack share: a backbone, and its lowest tuned layer."""

    settings: BackboneSettings
    depth: int


@dataclass(frozen=True)
class _Waiting:
    """A member that has joined and is not in training yet."""

    number: int
    config: PeftConfig
    order: Order


class Trainer:
    """Evaluates configurations by training them; the backbone and the data stay loaded.

    Configurations that join train side by side as far as they can share the backbone; the others
    wait. Everything below the lowest tuned layer is computed once an example, without dropout.

    The metrics of a report are those of the task on the validation split, `validation_loss`,
    `n_validation` (examples; some before the last rung, all at it), where the order asks for it
    those of the test split with `test_` before their names, `trained_elements` (the head's
    included; where there are none, one report is all), `train_loss` (mean since the last report),
    `learning_rate` (of the last step), `train_seconds`, `epoch_seconds` (mean of an epoch, both
    without evaluation, by share of the rows) and `eval_seconds`. The same seed gives a
    configuration that trains alone the same numbers.

    Args:
        reference: the backbone, see `load_backbone`.
        task: what is trained.
        device: `auto`, or a name of torch.
        threads: of torch in this process; None leaves them as they are.
        spread: the backbone over all CUDA devices of this process.
        trust_remote_code: whether code that comes with the backbone may run.
        cache: bytes of hidden states to keep in memory.
        disk_cache: bytes of those to keep on disk besides.
        examples: of the task for this backbone; None loads them.

    Raises:
        StudyError: the data or the backbone cannot be used.
    """

    def __init__(  # noqa: PLR0913
        self,
        reference: str,
        task: Task,
        *,
        device: str = "auto",
        threads: int | None = None,
        spread: bool = False,
        trust_remote_code: bool = False,
        cache: int = CACHE,
        disk_cache: int = 0,
        examples: Examples | None = None,
    ) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        if trust_remote_code:
            trust(reference)
        self.reference = reference
        self.task = task
        self.device, self._spread = target_device(device), spread
        if examples is None:
            examples = task.encode(task.load(), load_reader(reference, task.head))
        self.label_names, self._splits = examples.label_names, examples.splits
        self._measure = partial(task.measure, self.label_names)
        self._backbones: OrderedDict[BackboneSettings, Backbone] = OrderedDict()
        self._hidden = HiddenStates(cache, disk_cache)
        self._waiting: list[_Waiting] = []
        self._start: _Start | None = None
        self._pack: PackTraining | None = None

    def join(self, member: int, config: PeftConfig, order: Order) -> None:
        """Takes in a configuration, which starts as soon as it can share the backbone."""
        self._waiting.append(_Waiting(member, config, order))

    def leave(self, member: int) -> None:
        """Ends a member; one that is unknown or has ended is none."""
        self._waiting = [each for each in self._waiting if each.number != member]
        if self._pack is not None:
            self._pack.leave(member)
            self._close_if_empty()

    def advance(self) -> Sequence[Report | Failure]:
        """Trains until some member reports or fails; nothing without members, and never raises."""
        events = self._admit() or self._trained()
        if any(isinstance(event, Failure) and event.shortage for event in events):
            free()
        return events

    def __call__(
        self, configs: Sequence[PeftConfig], order: Order
    ) -> Generator[Report, None, None]:
        """The reports of some configurations, each a member by its place in the list.

        Raises:
            RuntimeError: one of them fails; the others end with it.
        """
        for number, config in enumerate(configs):
            self.join(number, config, order)
        try:
            while events := self.advance():
                for event in events:
                    if isinstance(event, Failure):
                        raise RuntimeError(event.error)
                    yield event
        finally:
            for number in range(len(configs)):
                self.leave(number)

    def score(
        self, config: PeftConfig, state: Mapping[str, Tensor], split: str = "test"
    ) -> dict[str, float]:
        """The metrics of saved tensors on `split`, with `loss` and `n_examples`.

        Raises:
            AttachError: `state` does not belong to `config`, or something is being trained.
            DivergenceError: some logit is not finite.
        """
        start = self._start_of(config)
        passes = self._passes(start)
        try:
            backbone = passes.backbone
            member = draw(backbone.model, config, modules_to_save=backbone.modules_to_save)
            member.load_state_dict(state)
            passes.pack.join(member)
            rows = torch.arange(len(self._splits[split]))
            return evaluate(passes, member, self._splits[split], rows, self._measure)
        finally:
            passes.pack.close()

    @contextmanager
    def lend(self, config: PeftConfig) -> Iterator[Lent]:
        """The backbone in the form that a configuration asks for, with the data, for a while.

        Raises:
            AttachError: something is being trained.
        """
        self._backbone(config)
        passes = self._passes(_Start(BackboneSettings(**dict(config.backbone)), 0))
        try:
            yield Lent(passes, self._splits["train"], self._splits["validation"], self._measure)
        finally:
            passes.pack.close()

    def _trained(self) -> Sequence[Report | Failure]:
        if self._pack is None:
            return []
        events = self._pack.advance()
        self._close_if_empty()
        return events

    def _admit(self) -> list[Failure]:
        """Lets in whoever fits those in training, or the first in line if nobody is."""
        refused: list[Failure] = []
        waiting: list[_Waiting] = []
        for each in self._waiting:
            try:
                if not self._lets_in(each):
                    waiting.append(each)
            except Exception as error:  # whatever a configuration asks for, others go on
                self._close_if_empty()
                if self._pack is not None and is_short(error):
                    waiting.append(each)
                    continue
                refused.append(failure_of(each.number, error, each.config, self.device))
        self._waiting = waiting
        return refused

    def _lets_in(self, waiting: _Waiting) -> bool:
        settings = BackboneSettings(**dict(waiting.config.backbone))
        if self._start is not None and settings != self._start.settings:
            return False
        start = self._start_of(waiting.config)
        if self._start is None or self._pack is None:
            self._start, self._pack = (
                start,
                PackTraining(self._passes(start), self._splits, self._measure),
            )
        if start != self._start or not self._pack.has_room:
            return False
        self._pack.join(self._begun(waiting))
        return True

    def _begun(self, waiting: _Waiting) -> MemberTraining:
        backbone, order = self._backbone(waiting.config), waiting.order
        tensors = draw(
            backbone.model,
            waiting.config,
            modules_to_save=backbone.modules_to_save,
            seed=order.seed,
        )
        settings = TrainSettings(**dict(waiting.config.train))
        examples = self._splits["train"]
        descent = Descent(tensors.groups, examples, backbone.criterion, settings, order)
        randomness = Randomness(order.seed)
        member = MemberTraining(tensors, descent, randomness, order, waiting.number)
        if order.reached:
            member.go_on()
        return member

    def _start_of(self, config: PeftConfig) -> _Start:
        backbone = self._backbone(config)
        depth = starting_depth(backbone.model, backbone.shape, [config])
        return _Start(BackboneSettings(**dict(config.backbone)), depth)

    def _passes(self, start: _Start) -> Passes:
        offloads = start.settings.activation_offloading
        backbone = self._backbones[start.settings]
        form = start.settings.dtype, start.settings.quantization
        return Passes(backbone, start.depth, self._hidden, form, offloads=offloads)

    def _close_if_empty(self) -> None:
        if self._pack is not None and not len(self._pack):
            self._pack.close()
            self._pack = self._start = None

    def _backbone(self, config: PeftConfig) -> Backbone:
        """The backbone of a configuration; on an accelerator only the last one is kept."""
        settings = BackboneSettings(**dict(config.backbone))
        if settings not in self._backbones:
            while len(self._backbones) >= (2 if self.device.type == "cpu" else 1):
                self._backbones.popitem(last=False)
            self._backbones[settings] = self._loaded(settings)
        self._backbones.move_to_end(settings)
        return self._backbones[settings]

    def _loaded(self, settings: BackboneSettings) -> Backbone:
        backbone = load_backbone(
            self.reference,
            self.task.head,
            settings,
            n_labels=max(1, len(self.label_names)),
            device=str(self.device),
            spread=self._spread,
        )
        check_embeddings([*self._splits.values()], backbone.model)
        can_start_above(backbone.model)  # found out on the model as transformers made it
        quicken(backbone.model, self.device.type, ExitStack())
        return backbone
