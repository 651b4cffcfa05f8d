"""What the CPU's allocator really hands out in training: the truth of `predict_memory`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import accumulate

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from autopeft.core.budget import Budget
from autopeft.core.config import PeftConfig
from autopeft.method.attach import attach
from autopeft.space.settings import TrainSettings
from autopeft.train.backbone import Backbone
from autopeft.train.batches import Encoded
from autopeft.train.descent import Descent

_EVENT = "[memory]"
_STEPS = 3


def measure_memory(
    backbone: Backbone,
    config: PeftConfig,
    *,
    batch_size: int,
    sequence_length: int,
    padded: bool = True,
) -> int:
    """The peak in bytes of a real training on the CPU, of three steps on made-up texts.

    Args:
        backbone: a text classifier on the CPU, in the form that `config.backbone` asks for.
        config: what is attached and trained.
        batch_size: texts.
        sequence_length: tokens of the longest texts.
        padded: whether half of the texts are one token shorter.
    """
    held = _tensors(backbone, config)
    split = _made_up(backbone, _STEPS * batch_size, sequence_length, padded)
    attached = attach(backbone.model, config, modules_to_save=backbone.modules_to_save)
    try:
        settings = TrainSettings(**{**dict(config.train), "batch_size": batch_size})
        descent = Descent(attached, backbone, split, settings, Budget(rungs=(1,)))
        return measured_peak(lambda: descent.until(1), [*held, *attached.trainable().values()])
    finally:
        attached.detach()
        backbone.model.eval()


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
        from autopeft.train import quantized  # takes two seconds to import, and few need it

        held += quantized.states(backbone.model)
    return held


def _made_up(backbone: Backbone, rows: int, length: int, padded: bool) -> Encoded:
    """Texts of ones, `length` tokens long or, every second one if `padded`, one less."""
    lengths = torch.full((rows,), length)
    if padded:
        lengths[::2] -= 1
    names = ["input_ids", "attention_mask"]
    if getattr(backbone.model.config, "type_vocab_size", 0) > 1:
        names.append("token_type_ids")
    columns = {
        name: [torch.ones(size, dtype=torch.long) for size in lengths.tolist()] for name in names
    }
    return Encoded(columns, dict.fromkeys(names, 0), lengths, torch.zeros(rows, dtype=torch.long))
