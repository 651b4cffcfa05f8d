"""Positions of a layer that stand before those of the text."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

INSERTED = "autopeft_inserted"
"""The attribute of an attention that gives what its layer runs on before the text."""


@dataclass(frozen=True)
class Inserted:
    """Positions of a layer that stand before those of the text.

    They see one another, where the layer is causal those before them alone, and the text where it
    is not. The text sees them, wherever it looks.

    Attributes:
        length: how many.
        in_keys: keys have them, not the queries alone.
        visible: which of them are a row's own, (batch, 1, 1, positions); None for all.
    """

    length: int
    in_keys: bool
    visible: Tensor | None

    def mask(
        self, mask: Tensor | None, query: Tensor, key: Tensor, causal: bool, adds: bool
    ) -> Tensor | None:
        """The mask of the text with rows and, in keys, columns for them.

        Shapes: mask (batch or 1, heads or 1, queries or 1, keys), query and key (batch, heads,
        positions, head_dim), theirs among them. With `adds` one that is made is added to scores.
        """
        queries = query.shape[2] - self.length
        keys = key.shape[2] - (self.length if self.in_keys else 0)
        causal = causal and self.in_keys
        if mask is None:
            if self.visible is None and (not causal or queries == keys):
                return None
            shown = torch.ones(queries, keys, dtype=torch.bool, device=key.device)[None, None]
            shown = shown.tril(keys - queries) if causal else shown
            mask = additive(shown, query.dtype) if adds else shown
        text = with_columns(mask, self.length, self.visible) if self.in_keys else mask
        if not causal and text.shape[2] == 1:
            return text
        return torch.cat([self._rows(text, causal), text], dim=2)

    def bias(self, bias: Tensor, query: Tensor, key: Tensor) -> Tensor:
        """A bias of scores by distance, (1, heads, queries, keys), which is zero for them."""
        before = self.length if self.in_keys else 0
        text = bias[..., self.length - query.shape[2] :, before - key.shape[2] :]
        return F.pad(text, (before, 0, self.length, 0))

    def _rows(self, text: Tensor, causal: bool) -> Tensor:
        """What they see themselves, of columns like those of `text`."""
        if not causal:
            rows = text.any(2, True) if text.dtype == torch.bool else text.amax(2, True)
            return rows.expand(-1, -1, self.length, -1)
        square = torch.ones(self.length, self.length, dtype=torch.bool, device=text.device)
        seen = square.tril()[None, None]
        if self.visible is not None:
            seen = seen & self.visible | torch.eye(
                self.length, dtype=torch.bool, device=text.device
            )
        seen = F.pad(seen, (0, text.shape[3] - self.length))
        seen = seen if text.dtype == torch.bool else additive(seen, text.dtype)
        return seen.expand(text.shape[0], text.shape[1], -1, -1)


def inserted_in(attention: nn.Module) -> Inserted | None:
    """What stands before the text in the layer of an attention in the present pass."""
    return getattr(attention, INSERTED, _nothing)()


def n_inserted(attention: nn.Module) -> int:
    """How many positions that are."""
    inserted = inserted_in(attention)
    return 0 if inserted is None else inserted.length


def _nothing() -> Inserted | None:
    return None


def with_columns(mask: Tensor, length: int, visible: Tensor | None) -> Tensor:
    """The mask with columns for `length` positions in front, all seen or those that are visible."""
    if visible is None:
        return F.pad(mask, (length, 0), value=True if mask.dtype == torch.bool else 0.0)
    visible = visible if mask.dtype == torch.bool else additive(visible, mask.dtype)
    visible = visible.expand(-1, *mask.shape[1:3], -1)
    return torch.cat([visible, mask.expand(visible.shape[0], -1, -1, -1)], dim=-1)


def additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """A mask of bool as what is added to scores."""
    zeros = torch.zeros(mask.shape, dtype=dtype, device=mask.device)
    return zeros.masked_fill(~mask, torch.finfo(dtype).min)
