"""Forward hooks that apply parts to the outputs of linears and norms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autopeft.method.method import Branch, Offset
from autopeft.method.sites import Columns, Layer

Inputs = tuple[Any, ...]


@dataclass(frozen=True)
class _Edit:
    """A part at its module: `columns` of the output belong to it; `recall` gets a tapped input."""

    part: Branch | Offset
    columns: Columns | None
    recall: Callable[[], Tensor] | None

    @property
    def last(self) -> bool:
        """Whether it reads the output that the other edits have made."""
        return isinstance(self.part, Branch) and self.part.source == "output"

    def __call__(self, module: nn.Module, x: Tensor, output: Tensor) -> Tensor:
        """The change of `output`, in its shape and dtype."""
        if isinstance(self.part, Offset):
            delta = self.part.vector
        else:
            source = output if self.last else self.recall() if self.recall else x
            delta = self.part.change(_widened(source), module.training)
        delta = delta.to(output.dtype)
        return delta if self.columns is None else _spread(delta, self.columns, output)


def edit_outputs(parts: Sequence[tuple[Layer, Branch | Offset]], undo: ExitStack) -> None:
    """Hooks the parts onto their modules until `undo` closes.

    On one module, parts that read its output come after all others: they see what a merged model
    would give.
    """
    stash: dict[int, Tensor] = {}
    undo.callback(stash.clear)
    edits: dict[nn.Module, list[_Edit]] = {}
    for index, (layer, part) in enumerate(parts):
        recall = None
        if isinstance(part, Branch) and part.source not in ("input", "output"):
            tapped = layer.module(part.source)
            undo.callback(tapped.register_forward_pre_hook(_tap(stash, index)).remove)
            recall = _recall(stash, index)
        edit = _Edit(part, layer.columns(part.at), recall)
        edits.setdefault(layer.module(part.at), []).append(edit)
    for module, own in edits.items():
        ordered = sorted(own, key=lambda edit: edit.last)
        undo.callback(module.register_forward_hook(_apply(ordered)).remove)


def in_float32(module: nn.Module, undo: ExitStack) -> None:
    """Lets `module`, whose parameters are float32, take inputs of any floating dtype."""

    def widen(module: nn.Module, inputs: Inputs) -> Inputs:
        return tuple(
            _widened(x) if isinstance(x, Tensor) and x.is_floating_point() else x for x in inputs
        )

    undo.callback(module.register_forward_pre_hook(widen).remove)


def _apply(edits: Sequence[_Edit]) -> Callable[[nn.Module, Inputs, Tensor], Tensor]:
    def apply(module: nn.Module, inputs: Inputs, output: Tensor) -> Tensor:
        for edit in edits:
            output = output + edit(module, inputs[0], output)
        return output

    return apply


def _tap(stash: dict[int, Tensor], index: int) -> Callable[[nn.Module, Inputs], None]:
    def tap(module: nn.Module, inputs: Inputs) -> None:
        stash[index] = inputs[0]

    return tap


def _recall(stash: dict[int, Tensor], index: int) -> Callable[[], Tensor]:
    return lambda: stash.pop(index)


def _spread(delta: Tensor, columns: Columns, output: Tensor) -> Tensor:
    """`delta`, (..., columns), as wide as `output`, with zeros elsewhere."""
    if isinstance(columns, slice):
        return F.pad(delta, (columns.start, output.shape[-1] - columns.stop))
    zeros = delta.new_zeros(*delta.shape[:-1], output.shape[-1])
    return zeros.index_copy(-1, columns.to(delta.device), delta)


def _widened(x: Tensor) -> Tensor:
    """`x` in the dtype of the trained tensors; as it is under autocast, which decides itself."""
    kind = x.device.type
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        return x
    return x.float()
