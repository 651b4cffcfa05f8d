"""`Form`: a configuration in which some leaves are still open, checked and parsed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from autopeft.core.errors import SpaceError, shown, unknown
from autopeft.core.quantity import parse_quantity
from autopeft.core.settings import BackboneSettings, TrainSettings
from autopeft.space.domain import Tree, dump, is_open
from autopeft.space.layers import ALLOCATIONS
from autopeft.space.parse import (
    name_check,
    once,
    parse_groups,
    parse_node,
    parse_pattern,
    parse_placement,
    parse_settings,
    parse_tuned,
)

KEYS = (
    "name",
    "description",
    "reference",
    "layers",
    "place",
    "train",
    "backbone",
    "limits",
    "budget",
)


class Layers:
    """How the layers are grouped, and which groups are tuned.

    Args:
        groups: a number, `each`, `all`, or a mapping of names to selectors.
        pattern: how a number of groups divides the layers, or a choice of patterns.
        tuned: `all`, names of groups, or `subset()`.
    """

    def __init__(self, groups: Any = "all", pattern: Any = "uniform", tuned: Any = "all") -> None:
        self.groups = parse_groups(groups, "layers.groups")
        self.pattern = parse_pattern(pattern, "layers.pattern")
        self.tuned = parse_tuned(tuned, "layers.tuned")
        if self.pattern != "uniform" and not isinstance(self.groups, int):
            raise SpaceError("a pattern needs a number of groups", "layers.pattern")

    @classmethod
    def of(cls, raw: Any) -> Layers:
        """From a document.

        Raises:
            SpaceError: unknown keys or values.
        """
        if isinstance(raw, Layers):
            return raw
        known_keys(raw, ("groups", "pattern", "tuned"), "layers")
        return cls(**raw)

    def to_dict(self) -> dict[str, Any]:
        """The document, without what is the default."""
        document = {
            "groups": dump(self.groups),
            "pattern": dump(self.pattern),
            "tuned": dump(self.tuned),
        }
        default = {"groups": "all", "pattern": "uniform", "tuned": "all"}
        return {key: value for key, value in document.items() if value != default[key]}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Layers) and self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        return hash((self.groups, self.pattern, self.tuned))


@dataclass(frozen=True)
class Form:
    """A space over any backbone.

    Every argument takes the form of the DSL: plain values, domains as mappings or from `choice`,
    `integer`, `real`, `subset`, placements as mappings or `Lora`, `Adapter`, `Prefix`, `BitFit`.

    Raises:
        SpaceError: the first key that means nothing, what was expected and what came.
    """

    layers: Any = field(default_factory=Layers)
    place: Any = ()
    train: Any = field(default_factory=dict)
    backbone: Any = field(default_factory=dict)
    limits: Any = field(default_factory=dict)
    budget: Any = field(default_factory=dict)
    name: str = "inline"
    description: str = ""
    reference: str = ""

    def __post_init__(self) -> None:
        parsed = {
            "layers": Layers.of(self.layers),
            "place": _parse_place(self.place),
            "train": once(parse_settings(self.train, "train", TrainSettings), "train"),
            "backbone": once(
                parse_settings(self.backbone, "backbone", BackboneSettings), "backbone"
            ),
            "limits": _parse_limits(self.limits),
            "budget": _parse_budget(self.budget),
        }
        for key, value in parsed.items():
            object.__setattr__(self, key, value)
        for key in ("name", "description", "reference"):
            if not isinstance(getattr(self, key), str):
                raise SpaceError(f"must be text, got {shown(getattr(self, key))}", key)

    def to_dict(self) -> dict[str, Any]:
        """The document of this space; loading it gives an equal space."""
        document = {
            "name": self.name,
            "description": self.description,
            "reference": self.reference,
            "layers": self.layers.to_dict(),
            "train": dump(self.train),
            "backbone": dump(self.backbone),
            "limits": dict(self.limits),
            "budget": dump(self.budget),
        }
        return {
            **{key: value for key, value in document.items() if value},
            "place": dump(self.place),
        }

    @property
    def is_configuration(self) -> bool:
        """Whether no choice is left."""
        layers = (self.layers.groups, self.layers.pattern, self.layers.tuned)
        return not any(
            is_open(node) for node in (*layers, self.place, self.train, self.backbone, self.budget)
        )


def _parse_place(raw: Any) -> tuple[Any, ...]:
    if not isinstance(raw, list | tuple):
        raise SpaceError(f"expected a list of placements, got {shown(raw)}", "place")
    return tuple(parse_placement(entry, f"place[{i}]") for i, entry in enumerate(raw))


def _parse_limits(raw: Any) -> tuple[tuple[str, Any], ...]:
    known_keys(raw, None, "limits")
    for key, value in raw.items():
        parse_quantity(value, f"limits.{key}", of=1.0)
    return tuple(raw.items())


def _parse_budget(raw: Any) -> Tree:
    known_keys(raw, ("trainable_params", "allocation"), "budget")
    entries: list[tuple[str, Any]] = []
    for key, value in raw.items():
        check = _amount if key == "trainable_params" else name_check("allocation", ALLOCATIONS)
        entries.append((key, once(parse_node(value, f"budget.{key}", check), f"budget.{key}")))
    return Tree(tuple(entries))


def _amount(value: Any, where: str) -> Any:
    parse_quantity(value, where, of=1.0)
    return value


def known_keys(raw: Any, known: Sequence[str] | None, where: str) -> None:
    """Checks that `raw` is a mapping with none but the known keys; with any where None is known.

    Raises:
        SpaceError: it is not.
    """
    if not isinstance(raw, Mapping):
        raise SpaceError(f"expected a mapping, got {shown(raw)}", where)
    for key in raw:
        if known is not None and key not in known:
            raise SpaceError(unknown("key", key, known), where)
