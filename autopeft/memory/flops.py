"""Floating-point operations of a configuration, counted on meta tensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from autopeft.core.config import PeftConfig
from autopeft.memory.meta_model import as_trained
from autopeft.memory.meta_step import batch_of, loss_of, outputs_of, padded_model, traced
from autopeft.memory.replay import replay
from autopeft.method.attach import attach
from autopeft.model.backbone import Backbone
from autopeft.model.kernels import Kernels
from autopeft.model.lower_layers import enter, started_at, starting_depth

_FORMULAS: Mapping[Any, Any] = FlopCounterMode(display=False).flop_registry


@dataclass(frozen=True)
class Flops:
    """Operations of matrix products; a multiplication with its addition counts as two.

    Attributes:
        lower: forward of one batch below the lowest tuned layer, needed once for each example.
        forward: of one batch through the whole model.
        training_step: forward and backward of one batch through the whole model.
    """

    lower: int
    forward: int
    training_step: int


def count_flops(
    backbone: Backbone, config: PeftConfig, batch_size: int, sequence_length: int
) -> Flops:
    """The operations of one batch of `batch_size` sequences of `sequence_length` tokens.

    Those that gradient checkpointing repeats are not among them, nor those that `quicken` saves.

    Args:
        backbone: on the meta device.
        config: what is attached and trained.
        batch_size: sequences.
        sequence_length: tokens of each.

    Raises:
        AttachError: `config` does not fit the backbone.
        StudyError: the backbone does not run without data.
    """
    lower, upper, backward = _Counter(), _Counter(), _Counter()
    model = as_trained(backbone, backbone.dtype, "none", "cuda")
    with ExitStack() as undo:
        depth = starting_depth(model, backbone.shape, [config])
        attached = attach(model, config, modules_to_save=backbone.modules_to_save)
        undo.callback(attached.detach)
        undo.enter_context(traced(model))
        undo.enter_context(padded_model(model))
        undo.enter_context(Kernels("cuda", padded=True))
        criterion = backbone.criterion
        batch = batch_of(model, criterion, batch_size, sequence_length)
        if depth:
            with lower:
                hidden = enter(model, depth, {n: t for n, t in batch.items() if n != "labels"})
            undo.enter_context(started_at(model, depth, hidden))
        with upper:
            loss = loss_of(criterion, outputs_of(model, criterion, batch), batch)
        if loss.requires_grad:  # else nothing is trained
            with backward:
                loss.backward()
    forward = lower.total + upper.total
    return Flops(lower.total, forward, forward + backward.total)


class _Counter(TorchDispatchMode):
    """Adds up what PyTorch's formulas say of operations on meta tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Iterable[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        out = replay(func, args, kwargs or {})
        formula = _FORMULAS.get(func._overloadpacket)
        if formula is not None:
            self.total += formula(*args, **(kwargs or {}), out_val=out)
        return out
