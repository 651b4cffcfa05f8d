"""`PeftConfig`: which PEFT method sits at which site of which layers, how big, trained how."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

Settings = tuple[tuple[str, Any], ...]

LEARNING_RATE = "learning_rate"
"""The option of a placement and the setting of a training that have this name."""


@dataclass(frozen=True)
class Placement:
    """One method with one set of options on some layers.

    Attributes:
        method: a name of the registry, such as `lora`.
        layers: indices of transformer layers, ascending, the encoder's before the decoder's.
        options: sorted pairs with every default filled in; lists are tuples.
    """

    method: str
    layers: tuple[int, ...]
    options: Settings

    @classmethod
    def of(cls, method: str, layers: Iterable[int], options: Mapping[str, Any]) -> Placement:
        """The placement in canonical form."""
        return cls(method, tuple(sorted(set(layers))), freeze(options))

    def __getitem__(self, option: str) -> Any:
        return dict(self.options)[option]

    @property
    def built(self) -> Settings:
        """The options that its tensors depend on: all but its learning rate."""
        return tuple(pair for pair in self.options if pair[0] != LEARNING_RATE)


@dataclass(frozen=True)
class PeftConfig:
    """A configuration in canonical form.

    Absent placements (no layer, size 0) are left out by whoever builds one, and defaults of their
    options are filled in; placements that differ in their layers only are joined; the order of
    writing is forgotten. Two ways to write equal configurations that differ otherwise, such as
    one placement on `q` and `v` or two, stay two values.
    """

    placements: tuple[Placement, ...] = ()
    train: Settings = field(default=())
    backbone: Settings = field(default=())

    @classmethod
    def of(
        cls,
        placements: Iterable[Placement] = (),
        train: Mapping[str, Any] | None = None,
        backbone: Mapping[str, Any] | None = None,
    ) -> PeftConfig:
        """The configuration in canonical form."""
        return cls(_joined(placements), freeze(train or {}), freeze(backbone or {}))

    @cached_property
    def key(self) -> str:
        """Content hash, 16 hexadecimal digits; the same in every process."""
        text = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @cached_property
    def built(self) -> PeftConfig:
        """What is attached to which backbone, whatever it is trained like."""
        placements = (Placement(p.method, p.layers, p.built) for p in self.placements)
        return PeftConfig(_joined(placements), (), self.backbone)

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers that carry any placement, ascending."""
        return tuple(sorted({layer for p in self.placements for layer in p.layers}))

    def to_dict(self) -> dict[str, Any]:
        """The configuration as a document of the DSL with no choice left."""
        place = [
            {"method": p.method, **thaw(p.options), "where": list(p.layers)}
            for p in self.placements
        ]
        document: dict[str, Any] = {"place": place}
        if self.train:
            document["train"] = thaw(self.train)
        if self.backbone:
            document["backbone"] = thaw(self.backbone)
        return document

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> PeftConfig:
        """The inverse of `to_dict`; documents of users go through `SearchSpace.load`."""
        placements = []
        for item in document["place"]:
            options = {k: v for k, v in item.items() if k not in {"method", "where"}}
            placements.append(Placement.of(item["method"], item["where"], options))
        return cls.of(placements, document.get("train"), document.get("backbone"))


def freeze(mapping: Mapping[str, Any]) -> Settings:
    """A mapping as sorted, hashable pairs; lists become tuples, inner mappings pairs."""
    return tuple(sorted((key, _frozen(value)) for key, value in mapping.items()))


def thaw(settings: Settings) -> dict[str, Any]:
    """The inverse of `freeze` for flat settings; tuples become lists."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in settings}


def _frozen(value: Any) -> Any:
    if isinstance(value, Mapping):
        return freeze(value)
    return tuple(_frozen(v) for v in value) if isinstance(value, list | tuple) else value


def _joined(placements: Iterable[Placement]) -> tuple[Placement, ...]:
    """Joins placements of equal options on disjoint layers; the same site twice stays twice."""
    rounds: dict[tuple[str, Settings], list[set[int]]] = {}
    for placement in placements:
        stacks = rounds.setdefault((placement.method, placement.options), [])
        for layer in placement.layers:
            free = next((s for s in stacks if layer not in s), None)
            if free is None:
                free = set()
                stacks.append(free)
            free.add(layer)
    joined = [
        Placement(method, tuple(sorted(layers)), options)
        for (method, options), stacks in rounds.items()
        for layers in stacks
        if layers
    ]
    return tuple(sorted(joined, key=lambda p: (p.method, json.dumps(p.options), p.layers)))
