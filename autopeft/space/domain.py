"""The leaves of a space that are still open, and the tree that holds them.

A node of the tree is a plain value (scalar or tuple), a domain, or a `Tree` of named nodes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

Scope = Literal["space", "group", "layer"]
SCOPES: tuple[Scope, ...] = ("space", "group", "layer")


@dataclass(frozen=True)
class Choice:
    """One of `items`; an item may itself be a domain, a tree or a tuple of trees."""

    items: tuple[Any, ...]
    per: Scope | None = None


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included, on a grid of `step` where there is one.

    Attributes:
        log: equal ratios count as equal distances.
        integer: whole numbers only; then `step` is at least 1.
    """

    low: float
    high: float
    log: bool = False
    step: float | None = None
    integer: bool = False
    per: Scope | None = None

    @cached_property
    def grid(self) -> tuple[float, ...] | None:
        """All values, ascending; None for a continuous range."""
        if self.step is None:
            return None
        n = math.floor((self.high - self.low) / self.step + 1e-9) + 1
        values = (self.low + i * self.step for i in range(n))
        return tuple(round(v) if self.integer else float(f"{v:.12g}") for v in values)


@dataclass(frozen=True)
class Subset:
    """Any subset of `items`; of the groups of layers where `items` is None."""

    items: tuple[Any, ...] | None
    per: Scope | None = None


@dataclass(frozen=True)
class Tree:
    """A mapping whose values are nodes, in the order of writing."""

    entries: tuple[tuple[str, Any], ...]

    def __iter__(self) -> Iterator[str]:
        return (key for key, _ in self.entries)

    def __getitem__(self, key: str) -> Any:
        return dict(self.entries)[key]

    def get(self, key: str, default: Any = None) -> Any:
        """The node under `key`, or `default`."""
        return dict(self.entries).get(key, default)


Domain = Choice | Range | Subset


def nodes(node: Any) -> Iterator[Any]:
    """The node and all that stands in it, in the order of writing."""
    yield node
    inner: Iterable[Any] = ()
    if isinstance(node, Tree):
        inner = (child for _, child in node.entries)
    elif isinstance(node, Choice):
        inner = node.items
    elif isinstance(node, tuple):
        inner = node
    for child in inner:
        yield from nodes(child)


def is_open(node: Any) -> bool:
    """Whether any leaf of the node is still a domain."""
    return any(isinstance(each, Domain) for each in nodes(node))


def dump(node: Any) -> Any:
    """The node as a document, the inverse of parsing."""
    if isinstance(node, Tree):
        return {key: dump(value) for key, value in node.entries}
    if isinstance(node, tuple):
        return [dump(item) for item in node]
    if isinstance(node, Choice):
        return {"choice": [dump(item) for item in node.items], **_per(node.per)}
    if isinstance(node, Subset):
        items = "groups" if node.items is None else list(node.items)
        return {"subset": items, **_per(node.per)}
    if isinstance(node, Range):
        return _dump_range(node)
    return node


def _dump_range(node: Range) -> Mapping[str, Any]:
    number = int if node.integer else float
    document: dict[str, Any] = {
        "int" if node.integer else "float": [number(node.low), number(node.high)]
    }
    if node.log:
        document["log"] = True
    if node.step is not None and not (node.integer and node.step == 1):
        document["step"] = number(node.step)
    return {**document, **_per(node.per)}


def _per(scope: Scope | None) -> dict[str, str]:
    return {} if scope is None else {"per": scope}


def choice(*items: Any, per: Scope | None = None) -> Any:
    """One of `items`, in Python."""
    return {"choice": [list(i) if isinstance(i, tuple) else i for i in items], **_per(per)}


def integer(
    low: int, high: int, *, log: bool = False, step: int = 1, per: Scope | None = None
) -> Any:
    """A whole number from `low` to `high`, both included, in Python."""
    return dict(_dump_range(Range(low, high, log, step, True, per)))


def real(
    low: float,
    high: float,
    *,
    log: bool = False,
    step: float | None = None,
    per: Scope | None = None,
) -> Any:
    """A number from `low` to `high`, both included, in Python."""
    return dict(_dump_range(Range(low, high, log, step, False, per)))


def subset(items: Any = "groups", *, per: Scope | None = None) -> Any:
    """Any subset of `items`, or of the groups of layers, in Python."""
    return {"subset": items if isinstance(items, str) else list(items), **_per(per)}
