"""Gates: how much a placement does at a site, by the text that is there."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from autopeft.method.method import AVERAGE, Change, Context, Part, Site, Weight, Weights

WEIGHT_NAME, BIAS_NAME = "gate.weight", "gate.bias"
_STD = 0.02


def gated_site(site: Site) -> Site:
    """The site with the tensors of a gate, weight (1, inputs) and bias (1,); it does not merge."""
    gate = (
        Weight(WEIGHT_NAME, (1, site.shape[1]), "normal", _STD),
        Weight(BIAS_NAME, (1,)),
    )
    return replace(site, weights=(*site.weights, *gate), changes={})


def parted(weights: Weights) -> tuple[Weights, Weights]:
    """The tensors of a site without those of its gate, and the latter, none where it has none."""
    gate = {name: weight for name, weight in weights.items() if name in (WEIGHT_NAME, BIAS_NAME)}
    return {name: weight for name, weight in weights.items() if name not in gate}, gate


def gated_part(part: Part, weights: Weights) -> Part:
    """What a part does, times the mean over the text of sigmoid(w x + b).

    x is what a change reads first, or what enters the attention of a context.

    References:
        Mao et al., "UniPELT: A Unified Framework for Parameter-Efficient Language Model Tuning",
        2022, section 3.2.
    """

    def gate(x: Tensor, average: Tensor) -> Tensor:
        """Of x (rows, positions, inputs), (rows, 1, 1)."""
        openness = torch.sigmoid(F.linear(x, weights[WEIGHT_NAME], weights[BIAS_NAME]))
        return (openness * average).sum(-2, keepdim=True)

    if isinstance(part, Context):
        own = part.gate
        both = gate if own is None else lambda x, average: gate(x, average) * own(x, average)
        return replace(part, gate=both)
    assert isinstance(part, Change)
    plain = part.change

    def change(x: Tensor, *others: Tensor | bool) -> Tensor:
        *more, average, training = others
        assert isinstance(average, Tensor)
        return plain(x, *more, training) * gate(x, average)

    return replace(part, change=change, reads=(*part.reads, AVERAGE))
