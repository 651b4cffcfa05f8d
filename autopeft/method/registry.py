"""The methods by name, and the way from a placement to its sites."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from autopeft.core.config import PeftConfig, Placement
from autopeft.core.errors import AttachError, inside, raised_as, unknown
from autopeft.core.methods import DECLARATIONS
from autopeft.core.shape import Shape
from autopeft.method.adapter import AdapterMethod
from autopeft.method.bitfit import BitFitMethod
from autopeft.method.dora import DoraMethod
from autopeft.method.ia3 import Ia3Method
from autopeft.method.lora import LoraMethod
from autopeft.method.method import Method, Site
from autopeft.method.moslora import MosLoraMethod
from autopeft.method.norm import NormTuningMethod
from autopeft.method.prefix import PrefixMethod
from autopeft.method.products import HiraMethod, LohaMethod, LokrMethod
from autopeft.method.vera import VeraMethod

METHODS: Mapping[str, type[Method]] = {
    "adapter": AdapterMethod,
    "bitfit": BitFitMethod,
    "dora": DoraMethod,
    "hira": HiraMethod,
    "ia3": Ia3Method,
    "loha": LohaMethod,
    "lokr": LokrMethod,
    "lora": LoraMethod,
    "moslora": MosLoraMethod,
    "norm": NormTuningMethod,
    "prefix": PrefixMethod,
    "vera": VeraMethod,
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
    """The mathematics of a placement.

    Raises:
        AttachError: unknown method; unknown, missing or impossible option.
    """
    if placement.method not in METHODS:
        raise AttachError(unknown("method", placement.method, METHODS))
    with inside(placement.method), raised_as(AttachError):
        options = DECLARATIONS[placement.method].closed(dict(placement.options))
    return METHODS[placement.method](options)


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
    sites = [(i, method, site) for i in placement.layers for site in method.sites(shape.layers[i])]
    if not sites:
        raise AttachError(f"none of these layers has a {method.looks_for()}", describe(placement))
    return sites
