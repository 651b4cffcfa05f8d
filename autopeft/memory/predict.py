"""The peak memory of one training step, from shapes alone: no weights, no data, no device.

One step is run on meta tensors with the rules of the device's kernels (`kernels`) while every
storage is followed from birth to death (`live`). Not seen are workspaces inside kernels, the
CUDA context (some 300 to 500 MB) and fragmentation, for which 4 to 8 per cent are a fair margin.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from autopeft.core.config import PeftConfig
from autopeft.core.errors import StudyError, unknown
from autopeft.core.settings import TrainSettings
from autopeft.memory.live_bytes import REST, Live
from autopeft.memory.meta_model import in_form
from autopeft.memory.meta_step import MetaBatch, batch_of, loss_of, outputs_of, padded_model, traced
from autopeft.method.member import Member, draw
from autopeft.method.pack import Pack
from autopeft.model.backbone import Backbone
from autopeft.model.head import Criterion
from autopeft.model.kernels import Kernels
from autopeft.model.lower_layers import enter, started_at, starting_depth
from autopeft.model.offload import offloaded

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
            `gradients` (of trained tensors), `batch` (with the hidden states that enter the lowest
            tuned layer), and `activations` (all else that is alive then: what backward needs and
            what the operation at work produces).
    """

    peak: int
    device: str
    parts: Mapping[str, int]

    @property
    def beside_backbone(self) -> int:
        """What is not the frozen backbone.

        In a pack it adds up, but for some per cents where methods differ, see `predict_pack`.
        """
        return self.peak - self.parts["backbone"]


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
    as it came. The layers below the lowest tuned one run first, without gradients, as they do on a
    batch whose hidden states are not known yet.

    Args:
        backbone: on the meta device; its quantization, if any, comes from `config`.
        config: what is attached and trained.
        batch_size: sequences.
        sequence_length: tokens a sequence, after padding; the longest batch makes a run's peak.
        device: `cuda` (of compute capability 8.0 or newer) or `cpu`.
        padded: whether some sequence is shorter, so that attention needs a mask.

    Raises:
        StudyError: `backbone` holds data, does not support checkpointing or does not run without
            data; an unknown device.
        AttachError: `config` does not fit the backbone.
    """
    return predict_pack(
        backbone,
        [config],
        batch_sizes=[batch_size],
        sequence_length=sequence_length,
        device=device,
        padded=padded,
    )


def predict_pack(
    backbone: Backbone,
    configs: Sequence[PeftConfig],
    *,
    batch_sizes: Sequence[int],
    sequence_length: int,
    device: str = "cuda",
    padded: bool = True,
) -> Memory:
    """The peak of a step in which several configurations train at once, see `Pack`.

    Args:
        backbone: as in `predict_memory`.
        configs: at least one; all want the backbone in the same form.
        batch_sizes: sequences of each; equal numbers are the same sequences.
        sequence_length: tokens a sequence, after padding.
        device: `cuda` or `cpu`.
        padded: whether attention needs a mask.

    Raises:
        StudyError: as in `predict_memory`, or the configurations want different forms.
        AttachError: one does not fit the backbone, or not beside the others.
    """
    _check(backbone, configs, device)
    live = Live(GRANULARITY[device], host=device == "cpu")
    settings = dict(configs[0].backbone)
    with ExitStack() as undo:
        model = in_form(backbone, settings, device, live, undo)
        undo.enter_context(traced(model))
        undo.enter_context(padded_model(model))
        undo.callback(model.train, model.training)
        undo.enter_context(Kernels(device, padded))
        depth = starting_depth(model, backbone.shape, configs)
        members = _packed(model, configs, batch_sizes, backbone.modules_to_save, undo)
        batch = batch_of(model, backbone.criterion, sum(batch_sizes), sequence_length)
        distinct = batch_sizes[0] if len(set(batch_sizes)) == 1 else sum(batch_sizes)
        live.assign("batch", batch.values())
        undo.enter_context(live)
        offloads = device == "cuda" and settings.get("activation_offloading", False)
        step = _Step(model, backbone.criterion, members, batch, distinct, depth, offloads)
        _trace(step, device, live)
    parts = {part: live.at_peak.get(part, 0) for part in PARTS}
    return Memory(live.peak, device, parts)


def _check(backbone: Backbone, configs: Sequence[PeftConfig], device: str) -> None:
    if device not in GRANULARITY:
        raise StudyError(unknown("device", device, GRANULARITY), "device")
    if backbone.device.type != "meta":
        raise StudyError("memory is predicted without weights, see `meta_backbone`", "backbone")
    if len({config.backbone for config in configs}) > 1:
        raise StudyError("the configurations of a pack want it in different forms", "backbone")


def _packed(
    model: PreTrainedModel,
    configs: Sequence[PeftConfig],
    sizes: Sequence[int],
    modules_to_save: Sequence[str],
    undo: ExitStack,
) -> list[Member]:
    """Every configuration on the model, each with its number of rows."""
    members = [draw(model, config, modules_to_save=modules_to_save) for config in configs]
    pack = Pack(model, modules_to_save)
    undo.callback(pack.close)
    for member in members:
        pack.join(member)
    if len(members) > 1:
        pack.split(sizes)
    return members


@dataclass(frozen=True)
class _Step:
    """What a training step works on.

    Attributes:
        model: with the members on it.
        criterion: what is trained for.
        members: what is trained.
        batch: of all members, micro-batch beside micro-batch.
        distinct: rows of the batch that differ.
        depth: the layer at which the members begin.
        offloads: whether activations wait on the host.
    """

    model: PreTrainedModel
    criterion: Criterion
    members: Sequence[Member]
    batch: MetaBatch
    distinct: int
    depth: int
    offloads: bool

    def settings(self) -> list[TrainSettings]:
        return [TrainSettings(**dict(member.config.train)) for member in self.members]

    def weights(self) -> list[nn.Parameter]:
        return [weight for member in self.members for weight in member.trainable().values()]

    def backward(self, live: Live) -> Tensor:
        """Adds the gradients of a micro-batch to those that are there."""
        outputs, loss = self._forward(live)
        if loss.requires_grad:  # else nothing is trained
            loss.backward()
        return outputs

    def _forward(self, live: Live) -> tuple[Tensor, Tensor]:
        with ExitStack() as inside:
            if self.depth:
                entering = self._entering(live)
                inside.enter_context(started_at(self.model, self.depth, entering))
            if self.offloads:
                held = (*self.model.parameters(), *self.model.buffers(), *self.weights())
                inside.enter_context(offloaded((*held, *self.batch.values())))
            outputs = outputs_of(self.model, self.criterion, self.batch)
        smoothing = self.settings()[0].label_smoothing_factor
        return outputs, loss_of(self.criterion, outputs, self.batch, smoothing)

    def _entering(self, live: Live) -> Tensor:
        """The hidden states that enter the lowest tuned layer, (rows, tokens, width).

        They are computed once for members that see the same sequences, kept without padding, and
        put together for everyone.
        """
        inputs = {n: t[: self.distinct].clone() for n, t in self.batch.items() if n != "labels"}
        live.assign("batch", inputs.values())
        hidden = torch.empty_like(enter(self.model, self.depth, inputs))
        entering = hidden.new_empty(len(self.batch["labels"]), *hidden.shape[1:])
        live.assign("batch", [entering])
        return entering


def _trace(step: _Step, device: str, live: Live) -> None:
    """One step of the optimizers as `Descent` takes it, their moments in place.

    Of several micro-batches the second is like all others but the first: gradients are there
    already. The outputs of the last one live until the step ends, as in the usual loop of a
    language model, where the logits may be a gigabyte.
    """
    live.assign("peft", step.weights())
    groups = [list(member.trainable().values()) for member in step.members]
    optimizers = [_optimizer(weights, device, live) for weights in groups if weights]
    _own_gradients(step.weights(), live)
    step.model.train()
    live.restart()
    if any(settings.gradient_accumulation_steps > 1 for settings in step.settings()):
        step.backward(live)
    outputs = step.backward(live)
    for weights, settings in zip(groups, step.settings(), strict=True):
        nn.utils.clip_grad_norm_(weights, settings.max_grad_norm)
    if device == "cuda":  # on a CPU the fused kernel updates in place
        for optimizer in optimizers:
            optimizer.step()
    del outputs


def _optimizer(weights: list[nn.Parameter], device: str, live: Live) -> torch.optim.Optimizer:
    """The trainer's optimizer as after a first step; CUDA takes the form for lists of tensors."""
    optimizer = torch.optim.AdamW(weights, foreach=device == "cuda")
    for weight in weights:
        moments = {name: torch.empty_like(weight) for name in ("exp_avg", "exp_avg_sq")}
        optimizer.state[weight] = {"step": torch.ones(()), **moments}
        live.assign("optimizer", optimizer.state[weight].values())
    return optimizer


def _own_gradients(weights: Iterable[nn.Parameter], live: Live) -> None:
    """Moves each gradient to its part once it is complete."""

    def assign(weight: Tensor) -> None:
        if weight.grad is not None:
            live.assign("gradients", [weight.grad])

    for weight in weights:
        weight.register_post_accumulate_grad_hook(assign)
