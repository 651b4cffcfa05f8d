"""Which positions of a forward pass are text, for parts that average over it or attend to it."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from autopeft.core.errors import AttachError
from autopeft.method.inserted import inserted_in, n_inserted
from autopeft.method.method import AVERAGE
from autopeft.method.sites import Layer

WHOLE = "autopeft_whole"
"""Attribute of the attention of a layer in which something reads all positions."""

_MASKS = {"decoder": "decoder_attention_mask"}
"""The argument of the model that marks the text of a stack, where it is not `attention_mask`."""


class Text:
    """What a model is told of the text in the present forward pass."""

    def __init__(self) -> None:
        self._marks: dict[str, Tensor] = {}
        self._continues = False

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
        if model.config.is_encoder_decoder:
            encoder = model.get_encoder()
            undo.callback(encoder.register_forward_pre_hook(self._note, with_kwargs=True).remove)

    def read(self, name: str, layer: Layer, x: Tensor) -> Tensor:
        """The `average` of the text, or what is `seen` of it, as a `Change` reads it.

        Args:
            name: of what is read.
            layer: in which `x` is.
            x: (rows, positions, width); the last positions are those of the text.
        """
        return self.average(layer, x) if name == AVERAGE else self._seen_inside(layer, x)

    def average(self, layer: Layer, x: Tensor) -> Tensor:
        """What each position counts in a mean over the text, (rows, positions, 1).

        Args:
            layer: of whose stack `x` is.
            x: (rows, positions, width); the last positions are those of the text.
        """
        before = n_inserted(layer.attentions["self"])
        mark = F.pad(self._mark(layer, x[:, before:]).float(), (before, 0))
        return (mark / mark.sum(dim=1, keepdim=True))[..., None]

    def seen(self, layer: Layer, x: Tensor) -> Tensor:
        """Which positions a position may know of, (rows, 1, positions or 1, positions), of bool.

        Args:
            layer: of whose stack `x` is.
            x: (rows, positions, width), of the text alone.

        Raises:
            AttachError: a cache holds earlier ones.
        """
        mark = self._mark(layer, x).bool()
        positions = x.shape[1]
        if self._continues:
            reason = "trained attention needs the whole text: generate without a cache"
            raise AttachError(f"{reason} (use_cache=False)")
        mark = mark[:, None, None]
        if not is_causal(layer):
            return mark
        earlier = torch.ones(positions, positions, dtype=torch.bool, device=x.device).tril()
        return mark & earlier | torch.eye(positions, dtype=torch.bool, device=x.device)

    def _seen_inside(self, layer: Layer, x: Tensor) -> Tensor:
        """`seen`, with what stands before the text in `x`."""
        inserted = inserted_in(layer.attentions["self"])
        if inserted is None:
            return self.seen(layer, x)
        seen = self.seen(layer, x[:, inserted.length :])
        mask = inserted.mask(seen, x[:, None], x[:, None], is_causal(layer), False)
        assert mask is not None
        return mask

    def _mark(self, layer: Layer, x: Tensor) -> Tensor:
        """Which positions of `x` are text and not padding, (rows, positions)."""
        if x.dim() == 2:
            raise AttachError(f"{layer.path} holds the positions of all texts in one row")
        mark = self._marks.get(_MASKS.get(layer.stack, "attention_mask"))
        return x.new_ones(x.shape[:2]) if mark is None else mark.reshape(x.shape[0], -1)

    def _note(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._marks.clear()
        named = dict(zip(inspect.signature(module.forward).parameters, args, strict=False)) | kwargs
        marks = {name: named.get(name) for name in ("attention_mask", *_MASKS.values())}
        self._marks |= {name: mark for name, mark in marks.items() if isinstance(mark, Tensor)}
        cache = named.get("past_key_values")
        self._continues = cache is not None and bool(cache.get_seq_length())


def is_causal(layer: Layer) -> bool:
    """Whether a position of a layer must not know of later ones."""
    return bool(getattr(layer.attentions.get("self"), "is_causal", True))


def check_open(layer: Layer, method: str) -> None:
    """Raises AttachError for a gate in a causal layer."""
    if is_causal(layer):
        reason = "averages over the whole text, which a causal layer must not see"
        raise AttachError(f"a gate {reason}", method)
