"""How many elements a configuration trains and changes, from shapes alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from autopeft.core.config import PeftConfig, Placement
from autopeft.core.shape import LayerShape, Shape
from autopeft.method.registry import place, sites_on


@dataclass(frozen=True)
class Counts:
    """Elements of a configuration, the task head left out.

    Attributes:
        trainable: elements that are trained.
        stored: those, and what else is kept of a training because it starts from data.
        changed: elements of the backbone that differ after merging; what does not merge, such as
            adapters and prefixes, changes none.
        by_method: trained elements by name of the method.
    """

    trainable: int
    stored: int
    changed: int
    by_method: Mapping[str, int]


def count(config: PeftConfig, shape: Shape) -> Counts:
    """The elements of `config` on a backbone of `shape`; no tensor is made.

    Raises:
        AttachError: the configuration does not fit the backbone.
    """
    elements: dict[str, tuple[str, int]] = {}
    stored: dict[str, int] = {}
    changed: dict[tuple[int, str], int] = {}
    for placed in place(config, shape):
        for weight in placed.site.weights:
            elements[placed.name(weight)] = placed.placement.method, weight.elements
            stored[placed.name(weight)] = weight.stored
        changed |= {(placed.layer, name): n for name, n in placed.site.changes.items()}
    by_method: Counter[str] = Counter()
    for method, n in elements.values():
        by_method[method] += n
    total = by_method.total(), sum(stored.values()), sum(changed.values())
    return Counts(*total, dict(by_method))


@dataclass(frozen=True)
class Elements:
    """Trained elements of one placement on one layer.

    Attributes:
        own: those of the layer.
        common: those of each tensor that the layers of the placement share, by its name.
    """

    own: int
    common: Mapping[str, int]

    @property
    def total(self) -> int:
        """All of them."""
        return self.own + sum(self.common.values())


def layer_elements(method: str, options: Mapping[str, Any], layer: LayerShape) -> Elements:
    """The trained elements of one placement on one layer; none where it has no site for it.

    Raises:
        AttachError: unknown method or bad options.
    """
    built = Placement.of(method, (), options).built
    weights = [w for site in sites_on(layer, method, built) for w in site.weights]
    own = sum(weight.elements for weight in weights if not weight.shared)
    return Elements(own, {w.common: w.elements for w in weights if w.trained and w.shared})


def trained_elements(method: str, options: Mapping[str, Any], layer: LayerShape) -> int:
    """How many those are, as if the placement stood on this layer alone."""
    return layer_elements(method, options, layer).total
