"""The peak memory of one training step, from shapes alone: no weights, no data, no device.

One step is run on meta tensors with the rules of the device's kernels (`kernels`) while every
storage is followed from birth to death (`live`). Not seen are workspaces inside kernels, the
CUDA context (some 300 to 500 MB) and fragmentation, for which 4 to 8 per cent are a fair margin.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
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
from autopeft.method.start import starts_from_data, taken_in
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

    @classmethod
    def at_peak(cls, live: Live, device: str) -> Memory:
        """What was alive at the worst moment."""
        return cls(live.peak, device, {part: live.at_peak.get(part, 0) for part in PARTS})

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

    It is that of the start of one of them where this takes more, see `start`.

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
    with on_meta(backbone, configs, device, padded) as stage:
        form = dict(configs[0].backbone)
        offloads = device == "cuda" and form.get("activation_offloading", False)
        for member in stage.pack.members:
            one = batch_of(stage.model, backbone.criterion, 1, sequence_length)
            _trace_start(_Step(stage, backbone.criterion, one, 1, offloads), member)
            del one
        start = Memory.at_peak(stage.live, device)
        if len(configs) > 1:
            stage.pack.split(batch_sizes)
        batch = batch_of(stage.model, backbone.criterion, sum(batch_sizes), sequence_length)
        stage.live.assign("batch", batch.values())
        distinct = batch_sizes[0] if len(set(batch_sizes)) == 1 else sum(batch_sizes)
        _trace(_Step(stage, backbone.criterion, batch, distinct, offloads), device)
    step = Memory.at_peak(stage.live, device)
    return max(start, step, key=lambda memory: memory.peak)


@dataclass(frozen=True)
class Stage:
    """What is trained, on a backbone without weights.

    Attributes:
        model: with the members on it.
        pack: of the members.
        depth: the layer at which they begin.
        live: what is alive.
    """

    model: PreTrainedModel
    pack: Pack
    depth: int
    live: Live

    def weights(self) -> list[nn.Parameter]:
        return [weight for member in self.pack.members for weight in member.trainable().values()]

    def optimizers(self, device: str) -> list[torch.optim.Optimizer]:
        """Those of the members as after a first step."""
        groups = (list(member.trainable().values()) for member in self.pack.members)
        return [_optimizer(weights, device, self.live) for weights in groups if weights]


@contextmanager
def on_meta(
    backbone: Backbone, configs: Sequence[PeftConfig], device: str, padded: bool
) -> Iterator[Stage]:
    """Configurations on a copy of a backbone, whose tensors are followed inside the block.

    Raises:
        StudyError: as in `predict_pack`.
        AttachError: as in `predict_pack`.
    """
    _check(backbone, configs, device)
    live = Live(GRANULARITY[device], host=device == "cpu")
    with ExitStack() as undo:
        model = in_form(backbone, dict(configs[0].backbone), device, live, undo)
        undo.enter_context(traced(model))
        undo.enter_context(padded_model(model))
        undo.callback(model.train, model.training)
        undo.enter_context(Kernels(device, padded))
        depth = starting_depth(model, backbone.shape, configs)
        members = [draw(model, c, modules_to_save=backbone.modules_to_save) for c in configs]
        pack = Pack(model, backbone.modules_to_save)
        undo.callback(pack.close)
        for member in members:
            pack.join(member)
        undo.enter_context(live)
        stage = Stage(model, pack, depth, live)
        sites = [site for member in members for site in member.sites]
        frozen = [tensor for site in sites for tensor in site.frozen.values()]
        live.assign("peft", [*stage.weights(), *frozen])
        yield stage


def _check(backbone: Backbone, configs: Sequence[PeftConfig], device: str) -> None:
    if device not in GRANULARITY:
        raise StudyError(unknown("device", device, GRANULARITY), "device")
    if backbone.device.type != "meta":
        raise StudyError("memory is predicted without weights, see `meta_backbone`", "backbone")
    if len({config.backbone for config in configs}) > 1:
        raise StudyError("the configurations of a pack want it in different forms", "backbone")


@dataclass(frozen=True)
class _Step:
    """What a training step works on.

    Attributes:
        stage: with what is trained.
        criterion: what is trained for.
        batch: of all members, micro-batch beside micro-batch.
        distinct: rows of the batch that differ.
        offloads: whether activations wait on the host.
    """

    stage: Stage
    criterion: Criterion
    batch: MetaBatch
    distinct: int
    offloads: bool

    def settings(self) -> list[TrainSettings]:
        members = self.stage.pack.members
        return [TrainSettings(**dict(member.config.train)) for member in members]

    def backward(self) -> Tensor:
        """Adds the gradients of a micro-batch to those that are there."""
        outputs, loss = self.forward()
        if loss.requires_grad:  # else nothing is trained
            loss.backward()
        return outputs

    def forward(self) -> tuple[Tensor, Tensor]:
        """What the model returns of the batch, and the loss."""
        stage = self.stage
        with ExitStack() as inside:
            if stage.depth:
                entering = self._entering()
                inside.enter_context(started_at(stage.model, stage.depth, entering))
            if self.offloads:
                held = (*stage.model.parameters(), *stage.model.buffers(), *stage.weights())
                inside.enter_context(offloaded((*held, *self.batch.values())))
            outputs = outputs_of(stage.model, self.criterion, self.batch)
        smoothing = self.settings()[0].label_smoothing_factor
        return outputs, loss_of(self.criterion, outputs, self.batch, smoothing)

    def _entering(self) -> Tensor:
        """The hidden states that enter the lowest tuned layer, (rows, tokens, width).

        They are computed once for members that see the same sequences, kept without padding, and
        put together for everyone.
        """
        inputs = {n: t[: self.distinct].clone() for n, t in self.batch.items() if n != "labels"}
        self.stage.live.assign("batch", inputs.values())
        hidden = torch.empty_like(enter(self.stage.model, self.stage.depth, inputs))
        entering = hidden.new_empty(len(self.batch["labels"]), *hidden.shape[1:])
        self.stage.live.assign("batch", [entering])
        return entering


def _trace_start(step: _Step, member: Member) -> None:
    """Lets a member start from two examples, one after the other, if it starts from any."""
    stage = step.stage
    if any(map(starts_from_data, member.sites)):
        stage.live.assign("batch", step.batch.values())
        stage.pack.split([int(other is member) for other in stage.pack.members])
        taken_in(stage.model, member.sites, lambda: (step.forward()[1] for _ in range(2)))


def _trace(step: _Step, device: str) -> None:
    """One step of the optimizers as `Descent` takes it, their moments in place.

    Of several micro-batches the second is like all others but the first: gradients are there
    already. The outputs of the last one live until the step ends, as in the usual loop of a
    language model, where the logits may be a gigabyte.
    """
    stage = step.stage
    optimizers = stage.optimizers(device)
    _own_gradients(stage.weights(), stage.live)
    stage.model.train()
    stage.live.restart()
    if any(settings.gradient_accumulation_steps > 1 for settings in step.settings()):
        step.backward()
    outputs = step.backward()
    for member, settings in zip(stage.pack.members, step.settings(), strict=True):
        nn.utils.clip_grad_norm_([*member.trainable().values()], settings.max_grad_norm)
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
