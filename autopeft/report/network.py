"""A configuration drawn as the network it is: layers as rows, sites as columns, sizes as shades."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from autopeft.core.config import PeftConfig, Placement
from autopeft.core.methods import DECLARATIONS

SUBLAYERS = {"attention": ("attention",), "ffn": ("ffn",), "both": ("attention", "ffn")}


@dataclass(frozen=True)
class Cell:
    """What stands at one site of one layer.

    Attributes:
        size: of the placements together, as they count it; 1 where they have none.
        words: what they are, for people.
    """

    size: float
    words: str


@dataclass(frozen=True)
class Network:
    """A configuration as a table.

    Attributes:
        columns: methods and their sites, in the order in which they first stand.
        rows: for each layer from the lowest what stands at each column, None for nothing.
    """

    columns: tuple[tuple[str, str], ...]
    rows: tuple[tuple[Cell | None, ...], ...]

    @property
    def largest(self) -> dict[str, float]:
        """The largest size by method."""
        sizes: dict[str, float] = {}
        for row in self.rows:
            for (method, _), cell in zip(self.columns, row, strict=True):
                if cell is not None:
                    sizes[method] = max(sizes.get(method, 0.0), cell.size)
        return sizes


def network(config: PeftConfig, n_layers: int) -> Network:
    """The placements of a configuration on so many layers."""
    cells: dict[tuple[int, tuple[str, str]], list[Placement]] = {}
    for placement in config.placements:
        for site in _sites(placement):
            for layer in placement.layers:
                cells.setdefault((layer, (placement.method, site)), []).append(placement)
    found = dict.fromkeys(column for _, column in cells)
    methods = dict.fromkeys(method for method, _ in found)
    columns = tuple(column for method in methods for column in found if column[0] == method)
    most = max([n_layers, *(layer + 1 for layer, _ in cells)])
    rows = (
        tuple(_cell(cells.get((layer, column), [])) for column in columns) for layer in range(most)
    )
    return Network(columns, tuple(rows))


def _sites(placement: Placement) -> Iterator[str]:
    options = dict(placement.options)
    if options.get("targets"):
        yield from options["targets"]
    elif options.get("at") in SUBLAYERS:
        yield from SUBLAYERS[options["at"]]
    else:
        yield "layer"


def _cell(placements: list[Placement]) -> Cell | None:
    if not placements:
        return None
    return Cell(sum(map(_size, placements)), "; ".join(map(_words, placements)))


def _size(placement: Placement) -> float:
    declared = DECLARATIONS.get(placement.method)
    name = None if declared is None else declared.size_option()
    size = dict(placement.options).get(name or "")
    return float(size) if isinstance(size, int | float) else 1.0


def _words(placement: Placement) -> str:
    if placement.method not in DECLARATIONS:
        return placement.method
    return DECLARATIONS[placement.method].closed(dict(placement.options)).words()
