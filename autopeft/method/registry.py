"""The methods by name, and the way from a placement to its sites."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from autopeft.core.config import PeftConfig, Placement
from autopeft.core.errors import AttachError, unknown
from autopeft.core.shape import Shape
from autopeft.method.adapter import Adapter
from autopeft.method.bitfit import BitFit
from autopeft.method.lora import Lora
from autopeft.method.method import Method, Site
from autopeft.method.prefix import Prefix

METHODS: Mapping[str, type[Method]] = {
    "adapter": Adapter,
    "bitfit": BitFit,
    "lora": Lora,
    "prefix": Prefix,
}


@dataclass(frozen=True)
class Placed:
    """A placement at one site of one layer.

    Attributes:
        key: what the names of its tensors begin with, such as `layers.3.lora.self.q`.
    """

    placement: Placement
    method: Method
    layer: int
    site: Site
    key: str


def build(placement: Placement) -> Method:
    """The method of a placement with its options.

    Raises:
        AttachError: unknown method; unknown, missing or impossible option.
    """
    if placement.method not in METHODS:
        raise AttachError(unknown("method", placement.method, METHODS))
    kind, options = METHODS[placement.method], dict(placement.options)
    fields = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
    for option in options:
        if option not in fields:
            raise AttachError(unknown("option", option, fields), placement.method)
    for option in fields:
        if option not in options:
            raise AttachError(f"option {option!r} is missing", placement.method)
    try:
        return kind(**options)
    except AttachError as error:
        raise error.inside(placement.method) from None


def place(config: PeftConfig, shape: Shape) -> tuple[Placed, ...]:
    """The sites of every placement, in the order of the placements and of the layers.

    Raises:
        AttachError: a bad option, a layer that the backbone does not have, or a placement that
            finds no site in any of its layers.
    """
    placed: list[Placed] = []
    taken: set[str] = set()
    for placement in config.placements:
        for layer, method, site in _sites(placement, shape):
            stem = f"layers.{layer}.{placement.method}.{site.name}"
            numbers = (stem if n == 1 else f"{stem}.{n}" for n in range(1, len(taken) + 2))
            key = next(name for name in numbers if name not in taken)
            taken.add(key)
            placed.append(Placed(placement, method, layer, site, key))
    return tuple(placed)


def lowest_layer(config: PeftConfig, shape: Shape) -> int:
    """The lowest layer on which a placement finds a site; the number of layers if none does.

    Norms before the first layer of a stack, such as that of the embeddings, count as its part.

    Raises:
        AttachError: see `place`.
    """
    return min((placed.layer for placed in place(config, shape)), default=len(shape.layers))


def describe(placement: Placement) -> str:
    """The placement as an error names it."""
    return f"{placement.method} on layers {', '.join(map(str, placement.layers)) or 'none'}"


def _sites(placement: Placement, shape: Shape) -> list[tuple[int, Method, Site]]:
    method = build(placement)
    for layer in placement.layers:
        if not 0 <= layer < len(shape.layers):
            reason = f"no layer {layer}; the backbone has {len(shape.layers)} layers"
            raise AttachError(reason, describe(placement))
    found = [(i, method, site) for i in placement.layers for site in method.sites(shape.layers[i])]
    if not found:
        raise AttachError(f"none of these layers has a {method.wanted()}", describe(placement))
    return found
