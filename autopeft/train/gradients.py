"""How strongly the loss reacts to the tensors of a member of a pack."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from autopeft.method.member import Member
from autopeft.task.batches import Encoded
from autopeft.train.passes import Passes


def squared_gradients(
    passes: Passes, member: Member, split: Encoded, rows: Tensor, batch_size: int
) -> list[float]:
    """Of the tensors of every layer, summed; the mean over batches, in eval mode.

    Args:
        passes: with the member alone in their pack.
        member: whose tensors are meant.
        split: where the examples are from.
        rows: which ones, (rows,).
        batch_size: how many of them share a gradient.
    """
    passes.backbone.model.eval()
    placed = [(spot.placed.layer, w) for spot in member.spots for w in spot.weights.values()]
    sums = [0.0] * len(passes.backbone.shape.layers)
    batches = rows.split(batch_size)
    for batch in batches:
        logits, wanted = passes.logits(split, batch, [len(batch)])
        loss = F.cross_entropy(logits, wanted)
        found = torch.autograd.grad(loss, [weight for _, weight in placed], materialize_grads=True)
        for (layer, _), gradient in zip(placed, found, strict=True):
            sums[layer] += gradient.float().square().sum().item() / len(batches)
    return sums
