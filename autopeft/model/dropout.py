"""Dropout whose masks take sixteen random bits an element, which is little work for a CPU."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_BITS = 16


def dropout_mask(like: Tensor, p: float) -> Tensor:
    """A mask in the shape, dtype and device of `like`: 0 with probability p, else 1 / (1 - p).

    The probability is rounded to a multiple of 2^-16, and the mask to that. Bits come from torch's
    global generator.
    """
    levels = 2**_BITS
    dropped = round(p * levels)
    words = like.new_empty(like.numel() // 4 + 1, dtype=torch.int64)  # batched inside vmap
    words.random_(-(2**63), None)
    bits = words.view(torch.int16)[: like.numel()].view(like.shape)
    stays = bits.ge_(dropped - levels // 2)  # an integer, since bools convert slowly
    return stays.to(like.dtype).mul_(levels / (levels - dropped))


class QuickDropout(nn.Dropout):
    """`nn.Dropout` by `dropout_mask`."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or self.p in (0.0, 1.0):
            return super().forward(input)
        return input * dropout_mask(input, self.p)
