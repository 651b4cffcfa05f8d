"""How strongly the loss reacts, before any training, to what a configuration would train."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from autopeft.core.config import PeftConfig, Placement
from autopeft.search.features import Kind, kind_of, placed, size_of
from autopeft.space.bound import BoundSpace

N_SAMPLES = 256
"""Samples of a space among which its kinds of placements are looked for."""


@dataclass(frozen=True)
class Sensitivity:
    """Squared gradients of new tensors at the start of a training, by kind of placement.

    At the start most methods leave the backbone as it is, so that the gradients of one placement
    do not depend on the others: one backward pass for each kind tells of all configurations.
    They are taken to grow with the size in proportion, as those of LoRA do where its scale does
    not depend on the rank.

    Attributes:
        squares: of the tensors of a placement of size 1, by kind and layer.

    References:
        He et al., Sensitivity-Aware Visual Parameter-Efficient Fine-Tuning, 2023.
    """

    squares: tuple[tuple[Kind, tuple[float, ...]], ...]

    @classmethod
    def of(cls, told: Iterable[tuple[PeftConfig, Sequence[float]]]) -> Sensitivity:
        """From `probes` and what they yield by layer."""
        found = []
        for config, squares in told:
            (placement,) = config.placements
            per_size = tuple(square / size_of(placement) for square in squares)
            found.append((kind_of(placement), per_size))
        return cls(tuple(found))

    def __call__(self, configs: Sequence[PeftConfig]) -> NDArray[np.float64]:
        """The norm of the gradient of each configuration; of an unknown kind it is 0."""
        squares = dict(self.squares)
        return np.sqrt(np.array([_sum(config, squares) for config in configs], np.float64))


def probes(space: BoundSpace, others: Iterable[PeftConfig] = ()) -> list[PeftConfig]:
    """One configuration for each kind of placement: the largest that is met, on all its layers.

    Args:
        space: in which kinds are looked for.
        others: configurations, such as baselines, that are looked at besides.
    """
    rng = np.random.default_rng(0)
    largest: dict[Kind, tuple[PeftConfig, Placement]] = {}
    layers: dict[Kind, set[int]] = {}
    for config in [*(space.sample(rng) for _ in range(N_SAMPLES)), *others]:
        for placement in config.placements:
            kind = kind_of(placement)
            layers.setdefault(kind, set()).update(placement.layers)
            if kind not in largest or size_of(placement) > size_of(largest[kind][1]):
                largest[kind] = config, placement
    return [
        replace(config, placements=(replace(p, layers=tuple(sorted(layers[kind]))),))
        for kind, (config, p) in sorted(largest.items(), key=repr)
    ]


def _sum(config: PeftConfig, known: Mapping[Kind, Sequence[float]]) -> float:
    """Over the placements, each in proportion to its size, and their layers."""
    return sum(
        size * sum(known[kind][layer] for layer in layers if layer < len(known[kind]))
        for kind, size, layers in placed(config)
        if kind in known
    )
