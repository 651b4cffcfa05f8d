"""Hooks that run trained networks along the layers, fed by what leaves them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from autopeft.method.consecutive import InRow, in_rows
from autopeft.method.hook import TrainedSite, widened
from autopeft.method.method import Beside
from autopeft.method.rows import Rows
from autopeft.method.sites import Layer
from autopeft.method.text import Text

States = dict[tuple[int, str], Tensor]
"""What networks have made below, (rows, positions, size), by member and placement."""


class _Fed:
    """A layer whose output feeds networks.

    Args:
        layer: where it is.
        steps: those of each member.
        states: what all layers give one another.
        rows: whose are whose.
        text: of the present pass.
    """

    def __init__(
        self,
        layer: Layer,
        steps: Mapping[int, Sequence[InRow]],
        states: States,
        rows: Rows,
        text: Text,
    ) -> None:
        self._layer, self._steps, self._states = layer, steps, states
        self._rows, self._text = rows, text

    def leave(self, module: nn.Module, args: Any, output: Any) -> Any:
        """What the layer returns, with what networks add that end here."""
        hidden, *more = output if isinstance(output, tuple) else (output,)
        seen = self._text.seen(self._layer, hidden)
        pieces = [
            self._stepped(member, hidden[rows], seen[rows])
            for member, rows in self._rows.of_each(hidden.shape[0]).items()
        ]
        if any(added for _, added in pieces):
            hidden = torch.cat([piece for piece, _ in pieces])
        return (hidden, *more) if isinstance(output, tuple) else hidden

    def _stepped(self, member: int, hidden: Tensor, seen: Tensor) -> tuple[Tensor, bool]:
        """The hidden states of a member's rows, and whether anything was added to them."""
        fed = widened(hidden.detach())
        added = False
        for in_row in self._steps.get(member, ()):
            part, key = in_row.site.part, (member, in_row.site.placed.common)
            assert isinstance(part, Beside)
            state = self._states.pop(key) if in_row.continues else None
            state = part.step(fed, state, seen)
            if in_row.goes_on:
                self._states[key] = state
            else:
                hidden, added = hidden + part.end(state).to(hidden.dtype), True
        return hidden, added


def put(
    model: PreTrainedModel,
    members: Sequence[Iterable[TrainedSite]],
    rows: Rows,
    text: Text,
    undo: ExitStack,
) -> None:
    """Runs the networks of every member along the layers of `model` until `undo` closes."""
    layers: dict[str, Layer] = {}
    by_layer: dict[str, dict[int, list[InRow]]] = {}
    for member, sites in enumerate(members):
        for in_row in in_rows([site for site in sites if isinstance(site.part, Beside)]):
            layer = in_row.site.layer
            layers[layer.path] = layer
            of_layer = by_layer.setdefault(layer.path, {})
            of_layer.setdefault(member, []).append(in_row)
    states: States = {}
    undo.callback(states.clear)
    for path, steps in by_layer.items():
        fed = _Fed(layers[path], steps, states, rows, text)
        undo.callback(model.get_submodule(path).register_forward_hook(fed.leave).remove)
