"""VeRA, of which HF peft has one pair of random matrices for linears of all shapes."""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Mapping
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from autopeft.exporter.translation import Tensors, Translation, module_path, rows, values, whole
from autopeft.method.hook import TrainedSite
from autopeft.method.sites import features


class Vera(Translation):
    """VeRA in which our pairs of matrices are blocks of the ranks of one.

    A module has the first columns of A (all ranks, most inputs) and the first rows of B (most
    outputs, all ranks). Its factors of the ranks are zero but in the block of its own pair.
    """

    kind = "vera"
    methods: ClassVar[frozenset[str]] = frozenset({"vera"})
    once: ClassVar[frozenset[str]] = methods

    @cached_property
    def _pairs(self) -> Mapping[Hashable, tuple[Tensor, Tensor]]:
        """A (r, inputs) and B (outputs of a module, r) by what tells them from others."""
        pairs = {}
        for site in self.sites:
            tensors = values(site)
            pairs[_pair(site)] = tensors["A"], whole(tensors["B"], site)
        return pairs

    @property
    def _rank(self) -> int:
        return sum(len(a) for a, _ in self._pairs.values())

    @property
    def modules(self) -> Mapping[str, Tensors]:
        ranks = itertools.accumulate(len(a) for a, _ in self._pairs.values())
        ends = dict(zip(self._pairs, ranks, strict=True))
        modules: dict[str, dict[str, Tensor]] = {}
        for site in self.sites:
            tensors, end = values(site), ends[_pair(site)]
            around = end - len(tensors["d"]), self._rank - end
            own = {
                "vera_lambda_d": F.pad(tensors["d"], around),
                "vera_lambda_b": whole(tensors["b"], site),
            }
            before = modules.get(module_path(site), {})
            modules[module_path(site)] = {name: t + before.get(name, 0) for name, t in own.items()}
        return modules

    @property
    def options(self) -> Mapping[str, Any]:
        return {"r": self._rank, "fan_in_fan_out": self.is_transposed}

    def tensors(self) -> Tensors:
        sizes = (features(site.module) for site in self.sites)
        inputs, outputs = map(max, zip(*sizes, strict=True))
        pairs = self._pairs.values()
        a = torch.cat([F.pad(a, (0, inputs - a.shape[1])) for a, _ in pairs])
        b = torch.cat([F.pad(b, (0, 0, 0, outputs - len(b))) for _, b in pairs], dim=1)
        return {**super().tensors(), "base_model.vera_A": a, "base_model.vera_B": b}


def _pair(site: TrainedSite) -> Hashable:
    """Equal for sites whose matrices are one and stand at the same outputs of their modules."""
    outputs = torch.arange(features(site.module)[1])[rows(site)]
    return site.placed.site.shape, site.placed.method.options.r, tuple(outputs.tolist())
