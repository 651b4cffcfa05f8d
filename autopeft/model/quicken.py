"""Less work for the same results: arithmetic of a frozen backbone that nobody asks for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import PreTrainedModel

from autopeft.method import attention
from autopeft.method.inserted import n_inserted
from autopeft.method.sites import layers_of
from autopeft.method.text import WHOLE
from autopeft.model.dropout import QuickDropout
from autopeft.model.kernels import Kernels
from autopeft.model.lower_layers import random_inputs
from autopeft.model.short_attention import FIRST_ONLY, SHORT

_aten = torch.ops.aten
_BY_POSITION = {
    _aten.native_layer_norm.default,
    _aten.alias.default,
    _aten.detach.default,
    _aten._to_copy.default,
}
"""Operations whose output at a position depends on the input at that position alone."""

_TOLERANCE = 0.05


def quicken(model: PreTrainedModel, device: str, undo: ExitStack) -> None:
    """Lets `model` compute the same with less work, until `undo` closes.

    The feed-forward network of the last layer runs for the first position only, where the head
    reads no other. On a CPU attention is that of `short_attention`, which then does the same in
    that layer, and dropout that of `dropout_mask`.

    Args:
        model: carries no configuration.
        device: on which it runs, or is planned to: `cpu` or `cuda`.
        undo: leaves the model as it came when it closes.
    """
    block = _before_unread_positions(model)
    if block is not None:
        last = layers_of(model)[-1].attentions["self"]
        undo.callback(block.register_forward_hook(partial(_first_position, last)).remove)
    if device != "cpu":
        return
    if model.config._attn_implementation == "sdpa":
        attention.switch(model, SHORT, undo)
        if block is not None:
            setattr(last, FIRST_ONLY, True)
            undo.callback(delattr, last, FIRST_ONLY)
    for module in model.modules():
        if type(module) is nn.Dropout:
            undo.callback(setattr, module, "__class__", nn.Dropout)
            module.__class__ = QuickDropout


def _first_position(last: nn.Module, module: nn.Module, inputs: Any, output: Any) -> Any:
    """What is returned for the first position of the text, or all where something reads all.

    Args:
        last: the attention of the layer.
        module: what has returned `output`.
        inputs: not read.
        output: (rows, positions, width), or a tuple with it.
    """
    if hasattr(last, WHOLE):
        return output
    first = n_inserted(last)
    positions = slice(first, first + 1)
    if isinstance(output, tuple):
        return output[0][:, positions].contiguous(), *output[1:]
    return output[:, positions].contiguous()  # a bfloat16 linear would repeat its weight by row


@torch.no_grad()
def _before_unread_positions(model: PreTrainedModel) -> nn.Module | None:
    """The module that feeds the last feed-forward network, if the head reads one position of it.

    On a device with data the logits are compared with and without.
    """
    was_training = model.training
    model.eval()
    try:
        with Kernels("cpu", padded=True):  # answers for meta tensors only
            return _examined(model)
    except Exception:  # it takes other inputs, or its parts are elsewhere
        return None
    finally:
        model.train(was_training)


def _examined(model: PreTrainedModel) -> nn.Module | None:
    layer = layers_of(model)[-1]
    inputs, _ = random_inputs(model)
    with _Readers() as readers, ExitStack() as undo:
        last = model.get_submodule(layer.path)
        feeders = _Feeders(last, layer.linears["up"].module, undo)
        undo.callback(last.register_forward_hook(readers.start).remove)
        logits = model(**inputs).logits
    if not readers.first_position_only or feeders.last is None:
        return None
    first_position = partial(_first_position, layer.attentions["self"])
    handle = feeders.last.register_forward_hook(first_position)
    try:
        shorter = model(**inputs).logits
    finally:
        handle.remove()
    same = shorter.is_meta or torch.allclose(shorter, logits, rtol=_TOLERANCE, atol=_TOLERANCE)
    return feeders.last if same and shorter.shape == logits.shape else None


class _Feeders:
    """Finds the last module inside `layer` to return the very tensor that `reader` gets.

    Attributes:
        last: None as long as there is none.
    """

    def __init__(self, layer: nn.Module, reader: nn.Module, undo: ExitStack) -> None:
        self.last: nn.Module | None = None
        self._returned: list[tuple[nn.Module, Tensor]] = []
        for module in layer.modules():
            if module is not layer:
                undo.callback(module.register_forward_hook(self._note).remove)
        undo.callback(reader.register_forward_pre_hook(self._match).remove)

    def _note(self, module: nn.Module, inputs: Any, output: Any) -> None:
        first = output[0] if isinstance(output, tuple) else output
        self._returned.append((module, first))

    def _match(self, module: nn.Module, inputs: Sequence[Any]) -> None:
        for candidate, output in self._returned:
            if output is inputs[0]:
                self.last = candidate


class _Readers(TorchDispatchMode):
    """Watches which positions of a tensor (rows, positions, width) are read.

    Attributes:
        first_position_only: whether something reads the first one and nothing another.
    """

    def __init__(self) -> None:
        super().__init__()
        self._whole: list[Tensor] = []
        self._reads: list[bool] = []

    @property
    def first_position_only(self) -> bool:
        return bool(self._reads) and all(self._reads)

    def start(self, module: nn.Module, inputs: Any, output: Any) -> None:
        """A hook on the module whose output is watched."""
        self._whole = [output[0] if isinstance(output, tuple) else output]

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if any(whole is arg for whole in self._whole for arg in args):
            self._follow(func, args, result)
        return result

    def _follow(self, func: Any, args: Sequence[Any], result: Any) -> None:
        everything = func is _aten.slice.Tensor and result.shape == args[0].shape
        if func in _BY_POSITION or everything:
            self._whole.append(result[0] if isinstance(result, tuple) else result)
        else:
            self._reads.append(func is _aten.select.int and tuple(args[1:]) == (1, 0))
