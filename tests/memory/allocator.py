"""What the CPU's allocator really hands out in training: the truth of `predict_memory`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from itertools import accumulate

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from autopeft.core.config import PeftConfig, freeze, thaw
from autopeft.core.order import Order
from autopeft.core.settings import TrainSettings
from autopeft.method.member import draw
from autopeft.model.backbone import Backbone
from autopeft.model.head import Spans, TokenLabels
from autopeft.model.lower_layers import image_shape, starting_depth
from autopeft.model.quicken import quicken
from autopeft.task.batches import PIXELS, Encoded
from autopeft.train.descent import Descent
from autopeft.train.hidden import HiddenStates
from autopeft.train.member_training import MemberTraining
from autopeft.train.pack_training import PackTraining
from autopeft.train.passes import Passes
from autopeft.train.randomness import Randomness

_EVENT = "[memory]"
_STEPS = 3


def measure_memory(
    backbone: Backbone,
    configs: Sequence[PeftConfig],
    *,
    batch_size: int,
    sequence_length: int,
    padded: bool = True,
) -> int:
    """The peak in bytes of a real training on the CPU, of three steps on made-up texts.

    Nothing is known of the hidden states below the lowest tuned layer, nor kept.

    Args:
        backbone: a text classifier on the CPU, in the form that its configurations ask for.
        configs: what trains at once, on the same texts.
        batch_size: texts of a micro-batch.
        sequence_length: tokens of the longest texts.
        padded: whether half of the texts are one token shorter.
    """
    held = _tensors(backbone, configs[0])
    depth = starting_depth(backbone.model, backbone.shape, configs)
    sized = [replace(c, train=freeze({**thaw(c.train), "batch_size": batch_size})) for c in configs]
    rows = batch_size * max(_settings(config).gradient_accumulation_steps for config in sized)
    splits = {
        "train": made_up(backbone, "train", _STEPS * rows, sequence_length, padded),
        "validation": made_up(backbone, "validation", 1, 1, False),
    }
    members = [_begun(backbone, n, config, splits["train"]) for n, config in enumerate(sized)]
    undo = ExitStack()
    quicken(backbone.model, "cpu", undo)
    passes = Passes(backbone, depth, HiddenStates(0), form=None)
    pack = PackTraining(passes, splits, lambda judged: {"loss": judged.loss})
    held += [tensor for member in members for tensor in member.tensors.trainable().values()]
    sites = [site for member in members for site in member.tensors.sites]
    held += [tensor for site in sites for tensor in site.frozen.values()]
    try:
        return measured_peak(partial(_trained, pack, members), held)
    finally:
        pack.close()
        undo.close()


def _trained(pack: PackTraining, members: Sequence[MemberTraining]) -> None:
    """Everything from where tensors start."""
    for member in members:
        pack.join(member)
    pack.advance()


def _begun(backbone: Backbone, number: int, config: PeftConfig, train: Encoded) -> MemberTraining:
    member = draw(backbone.model, config, modules_to_save=backbone.modules_to_save)
    settings, order = _settings(config), Order(rungs=(1,))
    groups = member.groups
    descent = Descent(groups, train, backbone.criterion, settings, order)
    return MemberTraining(member, descent, Randomness(order.seed), order, number)


def _settings(config: PeftConfig) -> TrainSettings:
    return TrainSettings(**dict(config.train))


def measured_peak(step: Callable[[], object], held: Iterable[Tensor]) -> int:
    """Most bytes allocated at once while `step` runs, on the CPU.

    The allocator's own events are summed, so workspaces inside kernels count too; memory that the
    C library keeps for later does not.

    Args:
        step: what is measured.
        held: tensors that exist before and after; each storage counts once.
    """
    before = {t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in held}
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        step()
    results = recorded.profiler.kineto_results
    events = [event for event in results.events() if event.name() == _EVENT]
    changes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    return sum(before.values()) + max(accumulate(changes, initial=0))


def _tensors(backbone: Backbone, config: PeftConfig) -> list[Tensor]:
    """Everything that the frozen backbone holds."""
    held: list[Tensor] = [*backbone.model.parameters(), *backbone.model.buffers()]
    if dict(config.backbone).get("quantization", "none") != "none":
        from autopeft.model import quantized  # takes two seconds to import, and few need it

        held += quantized.states(backbone.model)
    return held


def made_up(backbone: Backbone, name: str, rows: int, length: int, padded: bool) -> Encoded:
    """Images, or texts of ones, `length` long or, every second one if `padded`, one less."""
    lengths = torch.full((rows,), length)
    images = image_shape(backbone.model, rows)
    if images is not None:
        pixels = list(torch.ones(images))
        return Encoded(name, {PIXELS: pixels}, {}, lengths, _zeros(backbone, lengths))
    if padded:
        lengths[::2] -= 1
    names = ["input_ids", "attention_mask"]
    if getattr(backbone.model.config, "type_vocab_size", 0) > 1:
        names.append("token_type_ids")
    columns = {
        name: [
            torch.ones(backbone.criterion.shape(1, size)[1:], dtype=torch.long)
            for size in lengths.tolist()
        ]
        for name in names
    }
    labels = _zeros(backbone, lengths)
    return Encoded(name, columns, dict.fromkeys(names, 0), lengths, labels)


def _zeros(backbone: Backbone, lengths: Tensor) -> Tensor | list[Tensor]:
    """Targets of texts of these lengths."""
    criterion, n_labels = backbone.criterion, backbone.model.config.num_labels
    if isinstance(criterion, TokenLabels | Spans):
        return [torch.zeros(size, dtype=torch.long) for size in lengths.tolist()]
    blank = criterion.blank(len(lengths), 1, n_labels)
    return torch.zeros(blank.shape, dtype=blank.dtype)
