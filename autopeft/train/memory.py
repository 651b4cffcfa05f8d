"""The peak memory of one training step, from shapes alone: no weights, no data, no device.

One step is run on meta tensors with the rules of the device's kernels (`kernels`) while every
storage is followed from birth to death (`live`). Not seen are workspaces inside kernels, the
CUDA context (some 300 to 500 MB) and fragmentation, for which 4 to 8 per cent are a fair margin.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers.utils import ModelOutput

from autopeft.core.config import PeftConfig
from autopeft.core.errors import StudyError, unknown
from autopeft.method.attach import Attached, attach
from autopeft.space.settings import TrainSettings
from autopeft.train.backbone import Backbone
from autopeft.train.dry import Batch, batch_of, loss_of, outputs_of, padded_model
from autopeft.train.form import in_form
from autopeft.train.kernels import Kernels
from autopeft.train.live import REST, Live
from autopeft.train.offload import offloaded

GRANULARITY = {"cuda": 512, "cpu": 1}
PARTS = ("backbone", "peft", "optimizer", "gradients", "batch", REST)


@dataclass(frozen=True)
class Memory:
    """Bytes on the device at the worst moment of a training step.

    Attributes:
        peak: most bytes alive at once.
        device: `cuda` or `cpu`; they keep different things, so a prediction is for one of them.
        parts: what the peak consists of, summing to it: `backbone` (frozen weights and buffers),
            `peft` (trained tensors with the copy of the head), `optimizer` (its moments),
            `gradients` (of trained tensors), `batch`, and `activations` (all else that is alive
            then: what backward needs and what the operation at work produces).
    """

    peak: int
    device: str
    parts: Mapping[str, int]


def predict_memory(
    backbone: Backbone,
    config: PeftConfig,
    *,
    batch_size: int,
    sequence_length: int,
    device: str = "cuda",
    padded: bool = True,
) -> Memory:
    """The peak of any step but the first, in which the optimizer has no moments yet.

    The settings `config.backbone` that are present override the form of `backbone`, which is left
    as it came.

    Args:
        backbone: on the meta device; its quantization, if any, comes from `config`.
        config: what is attached and trained.
        batch_size: sequences.
        sequence_length: tokens a sequence, after padding; the longest batch makes a run's peak.
        device: `cuda` (of compute capability 8.0 or newer) or `cpu`.
        padded: whether some sequence is shorter, so that attention needs a mask.

    Raises:
        StudyError: `backbone` holds data, or the device is unknown.
        AttachError: `config` does not fit the backbone.
    """
    if device not in GRANULARITY:
        raise StudyError(unknown("device", device, GRANULARITY), "device")
    if backbone.device.type != "meta":
        raise StudyError("memory is predicted without weights, see `meta_backbone`", "backbone")
    live = Live(GRANULARITY[device], host=device == "cpu")
    wanted = dict(config.backbone)
    with ExitStack() as undo:
        model = in_form(backbone, wanted, device, live, undo)
        undo.enter_context(padded_model(model))
        attached = attach(model, config, modules_to_save=backbone.modules_to_save)
        undo.callback(attached.detach)
        undo.callback(model.train, model.training)
        batch = batch_of(model, batch_size, sequence_length)
        live.own("batch", batch.values())
        undo.enter_context(Kernels(device, padded))
        undo.enter_context(live)
        settings = TrainSettings(**dict(config.train))
        offloads = device == "cuda" and wanted.get("activation_offloading", False)
        _trace(_Step(attached, batch, settings, offloads), device, live)
    parts = {part: live.at_peak.get(part, 0) for part in PARTS}
    return Memory(live.peak, device, parts)


@dataclass(frozen=True)
class _Step:
    """What a training step works on."""

    attached: Attached
    batch: Batch
    settings: TrainSettings
    offloads: bool

    def weights(self) -> list[nn.Parameter]:
        return list(self.attached.trainable().values())

    def backward(self) -> ModelOutput:
        """Adds the gradients of a micro-batch to those that are there."""
        model = self.attached.model
        held = (*model.parameters(), *model.buffers(), *self.weights(), *self.batch.values())
        with offloaded(held if self.offloads else ()):
            outputs = outputs_of(model, self.batch)
            loss = loss_of(outputs, self.batch, self.settings.label_smoothing_factor)
        loss.backward()
        return outputs


def _trace(step: _Step, device: str, live: Live) -> None:
    """One step of the optimizer as `Descent` takes it, its moments in place.

    Of several micro-batches the second is like all others but the first: gradients are there
    already. The outputs of the last one live until the step ends, as in the usual loop of a
    language model, where the logits may be a gigabyte.
    """
    weights = step.weights()
    live.own("peft", weights)
    optimizer = _optimizer(weights, device, live)
    _own_gradients(weights, live)
    step.attached.model.train()
    live.restart()
    if step.settings.gradient_accumulation_steps > 1:
        step.backward()
    outputs = step.backward()
    nn.utils.clip_grad_norm_(weights, step.settings.max_grad_norm)
    if device == "cuda":  # on a CPU the fused kernel updates in place
        optimizer.step()
    del outputs


def _optimizer(weights: list[nn.Parameter], device: str, live: Live) -> torch.optim.Optimizer:
    """The trainer's optimizer after a first step; CUDA takes the form for lists of tensors."""
    optimizer = torch.optim.AdamW(weights, foreach=device == "cuda")
    for weight in weights:
        weight.grad = torch.empty_like(weight)
    optimizer.step()
    optimizer.zero_grad()
    for state in optimizer.state.values():
        live.own("optimizer", state.values())
    return optimizer


def _own_gradients(weights: Iterable[nn.Parameter], live: Live) -> None:
    """Moves each gradient to its part once it is complete."""

    def own(weight: Tensor) -> None:
        if weight.grad is not None:
            live.own("gradients", [weight.grad])

    for weight in weights:
        weight.register_post_accumulate_grad_hook(own)
