"""The form of a backbone without weights: precision, quantization, checkpointing."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from transformers import PreTrainedModel

from autopeft.train.backbone import Backbone
from autopeft.train.live import Live

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def in_form(
    backbone: Backbone, wanted: Mapping[str, Any], device: str, live: Live, undo: ExitStack
) -> PreTrainedModel:
    """The model as `wanted` says, entered into `live` as `backbone`; a copy where it differs.

    Args:
        backbone: on the meta device, not quantized.
        wanted: settings of the backbone that override its own.
        device: `cuda` or `cpu`, which multiply quantized weights differently.
        live: learns what the quantized kernels allocate.
        undo: leaves the backbone as it came when it closes.
    """
    quantization = wanted.get("quantization", "none")
    dtype = _DTYPES.get(wanted.get("dtype", "auto"), backbone.dtype)
    model = backbone.model
    if dtype != backbone.dtype or quantization != "none":
        model = _cast(copy.deepcopy(model), dtype)
    if quantization != "none":
        _quantize(model, quantization, backbone.modules_to_save, device, live, undo)
    live.own("backbone", (*model.parameters(), *model.buffers()))
    _checkpoint(model, wanted.get("gradient_checkpointing"), undo)
    return model


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
