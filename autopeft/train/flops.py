"""Floating-point operations of a configuration, counted on meta tensors."""

from __future__ import annotations

from dataclasses import dataclass

from torch.utils.flop_counter import FlopCounterMode

from autopeft.core.config import PeftConfig
from autopeft.method.attach import attach
from autopeft.train.backbone import Backbone
from autopeft.train.dry import batch_of, loss_of, outputs_of, padded_model
from autopeft.train.kernels import Kernels


@dataclass(frozen=True)
class Flops:
    """Operations of matrix products; a multiplication with its addition counts as two.

    Attributes:
        forward: of one batch.
        training_step: forward and backward of one batch.
    """

    forward: int
    training_step: int


def count_flops(
    backbone: Backbone, config: PeftConfig, batch_size: int, sequence_length: int
) -> Flops:
    """The operations of one batch of `batch_size` sequences of `sequence_length` tokens.

    Those that gradient checkpointing repeats are not among them.

    Args:
        backbone: on the meta device.
        config: what is attached and trained.
        batch_size: sequences.
        sequence_length: tokens of each.

    Raises:
        AttachError: `config` does not fit the backbone.
    """
    attached = attach(backbone.model, config, modules_to_save=backbone.modules_to_save)
    try:
        with padded_model(backbone.model) as model, Kernels("cuda", padded=True):
            batch = batch_of(model, batch_size, sequence_length)
            with FlopCounterMode(display=False) as forward:
                loss = loss_of(outputs_of(model, batch), batch)
            with FlopCounterMode(display=False) as backward:
                loss.backward()
    finally:
        attached.detach()
    return Flops(forward.get_total_flops(), forward.get_total_flops() + backward.get_total_flops())
