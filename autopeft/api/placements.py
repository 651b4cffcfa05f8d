"""The placements of a space as its document holds them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from autopeft.core.methods import Peft
from autopeft.method.bridge import check_options


def placements_in(tree: Any) -> Iterator[Mapping[str, Any]]:
    """All placements in a document."""
    if isinstance(tree, Mapping):
        if "method" in tree:
            yield tree
            return
        tree = list(tree.values())
    if isinstance(tree, list):
        for branch in tree:
            yield from placements_in(branch)


def methods_in(tree: Any) -> Iterator[str]:
    """The methods of all placements in a document."""
    return (placement["method"] for placement in placements_in(tree))


def check_peft_options(place: Any) -> None:
    """Raises AttachError for a type that HF peft has not, or an option that it has not."""
    for placement in placements_in(place):
        if placement["method"] == Peft.method:
            own = placement.keys() - {*Peft.options(), "method", "where"}
            for kind in _items(placement["peft_type"]):
                check_options(kind, sorted(own))


def _items(node: Any) -> Iterator[str]:
    """The names that a value or a choice between values holds."""
    for item in node["choice"] if isinstance(node, Mapping) else [node]:
        yield from [item] if isinstance(item, str) else _items(item)
