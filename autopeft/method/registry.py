"""The methods by name, and the way from a placement to its sites."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import EntryPoint

from autopeft.core.config import PeftConfig, Placement, Settings
from autopeft.core.declaration import Declaration
from autopeft.core.errors import AttachError, StudyError, inside, raised_as, unknown
from autopeft.core.methods import DECLARATIONS, Gateable
from autopeft.core.registry import loaded
from autopeft.core.shape import LayerShape, Shape
from autopeft.method.adamix import AdaMixMethod
from autopeft.method.adapter import AdapterMethod
from autopeft.method.affine import NormTuningMethod, SsfMethod
from autopeft.method.bitfit import BitFitMethod
from autopeft.method.bridge import PeftMethod
from autopeft.method.compacter import CompacterMethod
from autopeft.method.dora import DoraMethod
from autopeft.method.gate import gated_site
from autopeft.method.ia3 import Ia3Method
from autopeft.method.ladder import LadderMethod
from autopeft.method.lora import LoraMethod
from autopeft.method.method import Method, Site, Weight
from autopeft.method.moslora import MosLoraMethod
from autopeft.method.prefix import PrefixMethod
from autopeft.method.products import HiraMethod, LohaMethod, LokrMethod
from autopeft.method.prompt import PromptMethod
from autopeft.method.propetl import ProPetlMethod
from autopeft.method.select import FullTuningMethod, SparseTuningMethod
from autopeft.method.sparse_adapter import SparseAdapterMethod
from autopeft.method.tiny_attention import TinyAttentionMethod
from autopeft.method.vera import VeraMethod

_OWN: Mapping[str, type[Method]] = {
    "adamix": AdaMixMethod,
    "adapter": AdapterMethod,
    "bitfit": BitFitMethod,
    "compacter": CompacterMethod,
    "dora": DoraMethod,
    "full": FullTuningMethod,
    "hira": HiraMethod,
    "ia3": Ia3Method,
    "ladder": LadderMethod,
    "loha": LohaMethod,
    "lokr": LokrMethod,
    "lora": LoraMethod,
    "moslora": MosLoraMethod,
    "norm": NormTuningMethod,
    "peft": PeftMethod,
    "prefix": PrefixMethod,
    "prompt": PromptMethod,
    "propetl": ProPetlMethod,
    "sparse": SparseTuningMethod,
    "sparse-adapter": SparseAdapterMethod,
    "ssf": SsfMethod,
    "tiny-attention": TinyAttentionMethod,
    "vera": VeraMethod,
}


class _Methods(Mapping[str, type[Method]]):
    """The mathematics of each declaration; that of a package's is loaded when it is asked for."""

    def __init__(self, own: Mapping[str, type[Method]]) -> None:
        self.own = dict(own)

    def __getitem__(self, name: str) -> type[Method]:
        return self.own[name] if name in self.own else _added(name)

    def __iter__(self) -> Iterator[str]:
        return iter(DECLARATIONS)

    def __len__(self) -> int:
        return len(DECLARATIONS)


METHODS = _Methods(_OWN)


def _added(name: str) -> type[Method]:
    """The mathematics that a package's declaration names.

    Raises:
        KeyError: there is no such method.
        StudyError: it cannot be loaded, or is none.
    """
    told = DECLARATIONS[name].mathematics
    kind = loaded(EntryPoint(name, told, "autopeft.methods"))
    if not (isinstance(kind, type) and issubclass(kind, Method)):
        raise StudyError(f"{told!r} is no Method", name)
    return kind


@dataclass(frozen=True)
class Placed:
    """A placement at one site of one layer.

    Attributes:
        key: what the names of its tensors begin with, such as `layers.3.lora.self.q`.
        common: what those begin with that the sites of the placement share: `shared.compacter`.
    """

    placement: Placement
    method: Method
    layer: int
    site: Site
    key: str
    common: str

    def name(self, weight: Weight) -> str:
        """That of one of its tensors, equal for those that are one."""
        if not weight.shared:
            return f"{self.key}.{weight.name}"
        return f"{self.common}.{weight.common}" if weight.trained else weight.common


def build(placement: Placement) -> Method:
    """The mathematics of a placement.

    Raises:
        AttachError: unknown method; unknown, missing or impossible option.
    """
    return _kind(placement.method)(_closed(placement))


def _kind(method: str) -> type[Method]:
    if method not in METHODS:
        raise AttachError(unknown("method", method, METHODS))
    return METHODS[method]


def _closed(placement: Placement) -> Declaration:
    with inside(placement.method), raised_as(AttachError):
        return DECLARATIONS[placement.method].closed(dict(placement.options))


def place(config: PeftConfig, shape: Shape) -> tuple[Placed, ...]:
    """The sites of every placement, in the order of the placements and of the layers.

    Raises:
        AttachError: a bad option, a layer that the backbone does not have, or a placement that
            finds no site in any of its layers.
    """
    placed: list[Placed] = []
    taken: Counter[str] = Counter()
    for placement in config.placements:
        common = _untaken(f"shared.{placement.method}", taken)
        for layer, method, site in _sites(placement, shape):
            key = _untaken(f"layers.{layer}.{placement.method}.{site.name}", taken)
            placed.append(Placed(placement, method, layer, site, key, common))
    return tuple(placed)


def _untaken(stem: str, taken: Counter[str]) -> str:
    """`stem`, with a number from the second time on."""
    taken[stem] += 1
    return stem if taken[stem] == 1 else f"{stem}.{taken[stem]}"


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


def sites_on(layer: LayerShape, method: str, options: Settings) -> tuple[Site, ...]:
    """The sites of a placement on one layer, see `Placement.built`; none where it finds none.

    Raises:
        AttachError: unknown method or bad options.
    """
    return _sites_of(_kind(method), Placement(method, (), options), layer)


@lru_cache(maxsize=2**13)
def _sites_of(kind: type[Method], placement: Placement, layer: LayerShape) -> tuple[Site, ...]:
    options = _closed(placement)
    sites = kind(options).sites(layer)
    gated = isinstance(options, Gateable) and options.use_gating
    return tuple(map(gated_site, sites)) if gated else sites


def _sites(placement: Placement, shape: Shape) -> list[tuple[int, Method, Site]]:
    method = build(placement)
    for layer in placement.layers:
        if not 0 <= layer < len(shape.layers):
            reason = f"no layer {layer}; the backbone has {len(shape.layers)} layers"
            raise AttachError(reason, describe(placement))
    kind, options = placement.method, placement.built
    sites = [
        (i, method, site)
        for i in placement.layers
        for site in sites_on(shape.layers[i], kind, options)
    ]
    if not sites:
        raise AttachError(f"none of these layers has a {method.looks_for()}", describe(placement))
    return sites
