"""Which layers of a placement follow one another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from autopeft.method.hook import TrainedSite


class InRow(NamedTuple):
    """A site of a placement that has one a layer.

    Attributes:
        continues: the layer before has one of the placement, too.
        goes_on: so has the layer after.
    """

    site: TrainedSite
    continues: bool
    goes_on: bool


def in_rows(sites: Sequence[TrainedSite]) -> Iterator[InRow]:
    """The sites with what is beside them in the same stack; placements are told apart."""
    standing = {_place(site) for site in sites}
    for site in sites:
        placement, layer, stack = _place(site)
        before, after = ((placement, layer + step, stack) in standing for step in (-1, 1))
        yield InRow(site, before, after)


def _place(site: TrainedSite) -> tuple[str, int, str]:
    return site.placed.common, site.placed.layer, site.layer.stack
