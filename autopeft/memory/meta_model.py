"""The form of a backbone without weights: precision, quantization, checkpointing."""

from __future__ import annotations

import copy
from collections.abc import Hashable, Mapping
from contextlib import ExitStack
from types import ModuleType
from typing import Any
from weakref import WeakKeyDictionary

import torch
from transformers import PreTrainedModel

from autopeft.core.errors import StudyError
from autopeft.memory.live_bytes import Live
from autopeft.memory.meta_batch import padded_model
from autopeft.model.backbone import Backbone
from autopeft.model.depth import can_start_above
from autopeft.model.precision import dtype_of
from autopeft.model.shortcut import quicken

_FORMS: WeakKeyDictionary[PreTrainedModel, dict[Hashable, PreTrainedModel]] = WeakKeyDictionary()


def in_form(
    backbone: Backbone, wanted: Mapping[str, Any], device: str, live: Live, undo: ExitStack
) -> PreTrainedModel:
    """A copy of the model as `wanted` says, entered into `live` as `backbone`.

    The same form is the same copy at every call.

    Args:
        backbone: on the meta device, not quantized.
        wanted: settings of the backbone that override its own.
        device: `cuda` or `cpu`, which compute in different ways.
        live: learns what the quantized kernels allocate.
        undo: leaves the copy as it came when it closes.
    """
    quantization = wanted.get("quantization", "none")
    dtype = dtype_of(wanted.get("dtype", "auto"), backbone.dtype)
    model = as_trained(backbone, dtype, quantization, device)
    live.own("backbone", (*model.parameters(), *model.buffers()))
    if quantization != "none":
        quantized = _quantized()
        live.own("backbone", quantized.states(model))
        live.expand(quantized.expansions(device))
        undo.enter_context(quantized.unlogged())
    _checkpoint(model, wanted.get("gradient_checkpointing"), undo)
    return model


def as_trained(
    backbone: Backbone, dtype: torch.dtype, quantization: str, device: str
) -> PreTrainedModel:
    """A copy of the model that computes what the trainer's do, see `quicken`; always the same."""
    forms = _FORMS.setdefault(backbone.model, {})
    key = (dtype, quantization, device)
    if key not in forms:
        model = _cast(copy.deepcopy(backbone.model), dtype)
        with ExitStack() as quiet:
            quiet.enter_context(padded_model(model))
            if quantization != "none":
                quiet.enter_context(_quantized().unlogged())
                _quantized().quantize(model, quantization, backbone.modules_to_save, device)
            can_start_above(model)  # found out on the model as transformers made it
            quicken(model, device, ExitStack())
        forms[key] = model
    return forms[key]


def _quantized() -> ModuleType:
    from autopeft.model import quantized  # takes two seconds to import, and few need it

    return quantized


def _cast(model: PreTrainedModel, dtype: torch.dtype) -> PreTrainedModel:
    """The same model with its parameters in `dtype`; buffers keep theirs, as when loading."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    return model


def _checkpoint(model: PreTrainedModel, wanted: bool | None, undo: ExitStack) -> None:
    """Switches checkpointing on or off for a while; None leaves it."""

    def enable() -> None:
        model.activation_checkpointing_enable({"use_reentrant": False})
        model.disable_input_require_grads()

    def disable() -> None:
        model.activation_checkpointing_disable()
        model.disable_input_require_grads()  # the hook that enabling leaves on the embeddings

    if wanted and not model.supports_gradient_checkpointing:
        reason = f"{type(model).__name__} does not support it"
        raise StudyError(reason, "backbone.gradient_checkpointing")
    active = model.is_activation_checkpointing
    if wanted is not None and wanted != active:
        switch, back = (enable, disable) if wanted else (disable, enable)
        switch()
        undo.callback(back)
