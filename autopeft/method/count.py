"""How many elements a configuration trains and changes, from shapes alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from autopeft.core.config import PeftConfig, Placement
from autopeft.core.shape import LayerShape, Shape
from autopeft.method.registry import build, place


@dataclass(frozen=True)
class Counts:
    """Elements of a configuration, the task head left out.

    Attributes:
        trainable: elements that are trained.
        changed: elements of the backbone that differ after merging; what does not merge, such as
            adapters and prefixes, changes none.
        by_method: trained elements by name of the method.
    """

    trainable: int
    changed: int
    by_method: Mapping[str, int]


def count(config: PeftConfig, shape: Shape) -> Counts:
    """The elements of `config` on a backbone of `shape`; no tensor is made.

    Raises:
        AttachError: the configuration does not fit the backbone.
    """
    by_method: Counter[str] = Counter()
    changed: dict[tuple[int, str], int] = {}
    for placed in place(config, shape):
        by_method[placed.placement.method] += placed.site.elements
        changed |= {(placed.layer, name): n for name, n in placed.site.changes.items()}
    return Counts(by_method.total(), sum(changed.values()), dict(by_method))


def trained_elements(method: str, options: Mapping[str, Any], layer: LayerShape) -> int:
    """The trained elements of one placement on one layer; 0 where the layer has no site for it.

    Raises:
        AttachError: unknown method or bad options.
    """
    built = build(Placement.of(method, (0,), options))
    return sum(site.elements for site in built.sites(layer))
