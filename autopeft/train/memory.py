"""The peak memory of one training step, from shapes alone: no weights, no data, no device.

One step is run on meta tensors with the rules of the device's kernels (`kernels`) while every
storage is followed from birth to death (`live`). Not seen are workspaces inside kernels, the
CUDA context (some 300 to 500 MB) and fragmentation, for which 4 to 8 per cent are a fair margin.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

from autopeft.core.config import PeftConfig
from autopeft.core.errors import StudyError, unknown
from autopeft.method.attach import Attached, attach
from autopeft.space.settings import TrainSettings
from autopeft.train.backbone import Backbone
from autopeft.train.kernels import Kernels
from autopeft.train.live import REST, Live

GRANULARITY = {"cuda": 512, "cpu": 1}
PARTS = ("backbone", "peft", "optimizer", "gradients", "batch", REST)
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

Batch = dict[str, Tensor]


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
    with ExitStack() as undo:
        model = _in_form(backbone, config, device, live, undo)
        attached = attach(model, config, modules_to_save=backbone.modules_to_save)
        undo.callback(attached.detach)
        undo.callback(model.train, model.training)
        batch = batch_of(model, batch_size, sequence_length)
        live.own("batch", batch.values())
        undo.enter_context(Kernels(device, padded))
        undo.enter_context(live)
        _trace(attached, batch, TrainSettings(**dict(config.train)), device, live)
    parts = {part: live.at_peak.get(part, 0) for part in PARTS}
    return Memory(live.peak, device, parts)


def _trace(
    attached: Attached, batch: Batch, settings: TrainSettings, device: str, live: Live
) -> None:
    """One training step as `Descent` takes it, the optimizer's moments in place.

    The outputs of the model live until the step ends, as in the usual loop of a language model,
    where the logits may be a gigabyte.
    """
    weights = list(attached.trainable().values())
    live.own("peft", weights)
    optimizer = _optimizer(weights, device, live)
    _own_gradients(weights, live)
    model = attached.model.train()
    live.restart()
    outputs = _outputs(model, batch)
    _loss(outputs, batch, settings.label_smoothing_factor).backward()
    nn.utils.clip_grad_norm_(weights, settings.max_grad_norm)
    if device == "cuda":  # on a CPU the fused kernel updates in place
        optimizer.step()


def loss_of(model: PreTrainedModel, batch: Batch, smoothing: float) -> Tensor:
    """A scalar: cross entropy of one label an example, or the model's own of one a token."""
    return _loss(_outputs(model, batch), batch, smoothing)


def _outputs(model: PreTrainedModel, batch: Batch) -> ModelOutput:
    """What the model returns; it sees the labels only if it generates."""
    hidden = () if _generates(model) else ("labels",)
    return model(**{name: tensor for name, tensor in batch.items() if name not in hidden})


def _loss(outputs: ModelOutput, batch: Batch, smoothing: float) -> Tensor:
    if "loss" in outputs:
        return outputs.loss
    return F.cross_entropy(outputs.logits.float(), batch["labels"], label_smoothing=smoothing)


def _generates(model: PreTrainedModel) -> bool:
    return model.get_output_embeddings() is not None


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


def _in_form(
    backbone: Backbone, config: PeftConfig, device: str, live: Live, undo: ExitStack
) -> PreTrainedModel:
    """The model as `config.backbone` wants it, entered into `live`; a copy where it differs."""
    wanted = dict(config.backbone)
    quantization = wanted.get("quantization", "none")
    dtype = _DTYPES.get(wanted.get("dtype", "auto"), backbone.dtype)
    model = backbone.model
    if dtype != backbone.dtype or quantization != "none":
        model = _cast(copy.deepcopy(model), dtype)
    if quantization != "none":
        _quantize(model, quantization, backbone.modules_to_save, device, live, undo)
    live.own("backbone", (*model.parameters(), *model.buffers()))
    _checkpoint(model, wanted.get("gradient_checkpointing"), undo)
    return undo.enter_context(padded_model(model))


def _cast(model: PreTrainedModel, dtype: torch.dtype) -> PreTrainedModel:
    """The same model with its parameters in `dtype`; buffers keep theirs, as when loading."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    return model


def _quantize(
    model: PreTrainedModel,
    kind: str,
    keep: Sequence[str],
    device: str,
    live: Live,
    undo: ExitStack,
) -> None:
    """Quantizes in place and teaches `live` what the quantized kernels allocate."""
    from autopeft.train import quantized  # takes two seconds to import, and few need it

    quantized.quantize(model, kind, keep, device)
    live.own("backbone", quantized.states(model))
    live.expand(quantized.expansions(device))
    undo.enter_context(quantized.unlogged())


def _checkpoint(model: PreTrainedModel, wanted: bool | None, undo: ExitStack) -> None:
    """Switches checkpointing on or off for a while; None leaves it."""

    def enable() -> None:
        model.activation_checkpointing_enable({"use_reentrant": False})
        model.disable_input_require_grads()

    def disable() -> None:
        model.activation_checkpointing_disable()
        model.disable_input_require_grads()  # the hook that enabling leaves on the embeddings

    active = model.is_activation_checkpointing
    if wanted is not None and wanted != active:
        switch, back = (enable, disable) if wanted else (disable, enable)
        switch()
        undo.callback(back)


@contextmanager
def padded_model(model: PreTrainedModel) -> Iterator[PreTrainedModel]:
    """The model with the tokens for padding and for the start of a target, if it names none.

    Some heads refuse a batch without them.
    """
    configs = {id(c): c for c in (model.config, model.config.get_text_config())}.values()
    names = (
        "pad_token_id",
        *(("decoder_start_token_id",) if model.config.is_encoder_decoder else ()),
    )
    nameless = [(c, name) for c in configs for name in names if getattr(c, name, None) is None]
    for config, name in nameless:
        setattr(config, name, 0)
    try:
        yield model
    finally:
        for config, name in nameless:
            setattr(config, name, None)


def batch_of(model: PreTrainedModel, batch_size: int, length: int) -> Batch:
    """What a model is trained on, on the meta device.

    Returns:
        Token ids, mask and segments (batch, length) or pixels (batch, channels, height, width), and
        `labels`: (batch,), or (batch, length) for a model that generates.
    """
    if model.main_input_name == "pixel_values":
        size = model.config.image_size
        height, width = size if isinstance(size, list | tuple) else (size, size)
        pixels = (batch_size, model.config.num_channels, height, width)
        return {"pixel_values": _empty(*pixels, dtype=torch.float32), "labels": _empty(batch_size)}
    batch = {name: _empty(batch_size, length) for name in ("input_ids", "attention_mask")}
    if getattr(model.config, "type_vocab_size", 0) > 1:
        batch["token_type_ids"] = _empty(batch_size, length)
    batch["labels"] = _empty(batch_size, length) if _generates(model) else _empty(batch_size)
    return batch


def _empty(*shape: int, dtype: torch.dtype = torch.int64) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")
