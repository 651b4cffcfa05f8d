"""Which positions of a forward pass are text, for parts that average over it."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from autopeft.core.errors import AttachError
from autopeft.method.positions import n_inserted
from autopeft.method.sites import Layer

WHOLE = "autopeft_whole"
"""Attribute of the attention of a layer in which something averages over all positions."""

_MASKS = {"decoder": "decoder_attention_mask"}
"""The argument of the model that marks the text of a stack, where it is not `attention_mask`."""


class Text:
    """The marks of the present forward pass of a model."""

    def __init__(self) -> None:
        self._marks: dict[str, Tensor] = {}

    def watch(self, model: PreTrainedModel, layers: Iterable[Layer], undo: ExitStack) -> None:
        """Takes down what `model` is told until `undo` closes, if there are such layers.

        All positions of these are computed then, also where the head reads one.
        """
        attentions = {layer.attentions["self"] for layer in layers}
        if not attentions:
            return
        for attention in attentions:
            setattr(attention, WHOLE, True)
            undo.callback(delattr, attention, WHOLE)
        undo.callback(self._marks.clear)
        undo.callback(model.register_forward_pre_hook(self._note, with_kwargs=True).remove)

    def average(self, layer: Layer, x: Tensor) -> Tensor:
        """What each position counts in a mean over the text, (rows, positions, 1).

        Args:
            layer: of whose stack `x` is.
            x: (rows, positions, width); the last positions are those of the text.
        """
        rows, positions = x.shape[:2]
        mark = self._marks.get(_MASKS.get(layer.stack, "attention_mask"))
        before = n_inserted(layer.attentions["self"])
        if mark is None:
            mark = x.new_ones((rows, positions - before), dtype=torch.float32)
        mark = F.pad(mark.reshape(rows, -1).float(), (before, 0))
        return (mark / mark.sum(dim=1, keepdim=True))[..., None]

    def _note(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._marks.clear()
        marks = {name: kwargs.get(name) for name in ("attention_mask", *_MASKS.values())}
        self._marks |= {name: mark for name, mark in marks.items() if isinstance(mark, Tensor)}


def check_open(layer: Layer, method: str) -> None:
    """Raises AttachError where a position of a layer must not know of later ones."""
    attention = layer.attentions.get("self")
    if getattr(attention, "is_causal", True):
        reason = "averages over the whole text, which a causal layer must not see"
        raise AttachError(f"a gate {reason}", method)
