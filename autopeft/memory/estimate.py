"""Peak memory of thousands of configurations from a few traces, whose differences add up."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import lru_cache

from autopeft.core.config import PeftConfig, Placement, Settings
from autopeft.core.shape import Shape
from autopeft.core.size import size_option

Piece = tuple[str, Settings]
"""A method with its options on one layer."""

Predict = Callable[[PeftConfig], float]


def estimates(shape: Shape) -> bool:
    """Whether the layers are alike and many enough for `MemoryEstimate`."""
    kinds = {(layer.stack, layer.width, layer.linears) for layer in shape.layers}
    return len(shape.layers) >= 4 and len(kinds) == 1


class MemoryEstimate:
    """The sum of what the pieces of a configuration take, each traced by itself.

    A layer through which gradients flow costs something, and more for each piece on it; the lowest
    tuned one costs what its dearest piece makes it keep. Pieces are traced at their first use on
    the third and fourth layer from the top, below which all layers are alike; the last one, of
    which little runs, and a lowest layer above those are traced for themselves, and what layers
    cost that gradients pass is taken over from the first piece of the lowest one to the others. Of
    sizes only powers of two are traced, since memory is linear in them. Settings of training and
    backbone are those of the configuration that is asked for.

    Args:
        predict: the peak of a configuration in bytes.
        n_layers: of the backbone, at least 4.
        alike: leaves out of a configuration what does not change its peak.
    """

    def __init__(
        self,
        predict: Predict,
        n_layers: int,
        alike: Callable[[PeftConfig], PeftConfig] = lambda config: config,
    ) -> None:
        self._predict, self._alike, self._last = predict, alike, n_layers - 1
        self._third, self._fourth = n_layers - 3, n_layers - 4
        self._exactly = lru_cache(maxsize=8192)(self._trace)
        self._extra = lru_cache(maxsize=8192)(self._added)

    def __call__(self, config: PeftConfig) -> float:
        """The estimated peak in bytes.

        Raises:
            AttachError: as `predict`.
        """
        bare = self._alike(replace(config, placements=()))
        if not config.layers:
            return self._predict(bare)
        lowest = config.layers[0]
        pieces = {layer: _pieces(config, layer) for layer in config.layers}
        first = pieces[lowest][0]
        peak = self._lowest(bare, pieces[lowest], max(lowest, self._third))
        peak += max(0, self._third - lowest) * self._passed(bare, first)
        if lowest == 0:
            peak += self._at_the_bottom(bare, first)
        above = (piece for layer in config.layers[1:] for piece in pieces[layer])
        middle = sum(self._extra(bare, piece) for piece in above)
        if self._last in pieces and lowest < self._last:
            middle += sum(self._at_the_top(bare, piece) for piece in pieces[self._last])
        return peak + middle

    def _lowest(self, bare: PeftConfig, pieces: Iterable[Piece], layer: int) -> float:
        """The peak where nothing but some pieces stands, all on one layer."""
        extras = {piece: self._extra(bare, piece) for piece in pieces}
        bases = (self._traced(bare, piece, (layer,)) - extra for piece, extra in extras.items())
        return max(bases) + sum(extras.values())

    def _added(self, bare: PeftConfig, piece: Piece) -> float:
        """What a piece adds to a layer through which gradients flow anyway."""
        both = self._traced(bare, piece, (self._fourth, self._third))
        return both - self._traced(bare, piece, (self._fourth,))

    def _at_the_top(self, bare: PeftConfig, piece: Piece) -> float:
        """What a piece adds to the last layer beyond what it adds to another."""
        both = self._traced(bare, piece, (self._fourth, self._last))
        return both - self._traced(bare, piece, (self._fourth,)) - self._extra(bare, piece)

    def _passed(self, bare: PeftConfig, piece: Piece) -> float:
        """What a layer costs through which gradients flow."""
        fourth = self._traced(bare, piece, (self._fourth,))
        return fourth - self._traced(bare, piece, (self._third,))

    def _at_the_bottom(self, bare: PeftConfig, piece: Piece) -> float:
        """What is different where the first layer is tuned and no lower one comes before it."""
        expected = self._traced(bare, piece, (self._third,))
        expected += self._third * self._passed(bare, piece)
        return self._traced(bare, piece, (0,)) - expected

    def _traced(self, bare: PeftConfig, piece: Piece, layers: tuple[int, ...]) -> float:
        """The peak of a piece on some layers; of a size between powers of two what lies between."""
        method, options = piece
        name = size_option(method)
        size = 1 if name is None else dict(options)[name]
        below = 2 ** (int(size).bit_length() - 1)
        if size == below:
            return self._exactly(bare, piece, layers)
        low, high = (
            self._exactly(bare, (method, _resized(method, options, s)), layers)
            for s in (below, 2 * below)
        )
        return low + (size / below - 1) * (high - low)

    def _trace(self, bare: PeftConfig, piece: Piece, layers: tuple[int, ...]) -> float:
        method, options = piece
        return self._predict(replace(bare, placements=(Placement(method, layers, options),)))


def _resized(method: str, options: Settings, size: int) -> Settings:
    name = size_option(method)
    return tuple((key, size if key == name else value) for key, value in options)


def _pieces(config: PeftConfig, layer: int) -> list[Piece]:
    return [(p.method, p.built) for p in config.placements if layer in p.layers]
