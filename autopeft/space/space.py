"""`SearchSpace`: a document of the catalog, of a file or of Python, for any backbone."""

from __future__ import annotations

from dataclasses import dataclass

from autopeft.core.catalog import Reference, read
from autopeft.core.errors import SpaceError, inside, raised_as
from autopeft.core.shape import LayerShape, Shape
from autopeft.space.bound import BoundSpace
from autopeft.space.budget import Cost
from autopeft.space.form import KEYS, Form, known_keys


@dataclass(frozen=True)
class SearchSpace(Form):
    """A space over any backbone; `on` binds it to one."""

    @classmethod
    def load(cls, reference: Reference) -> SearchSpace:
        """The space that a name of the catalog, a path or a mapping stands for.

        Raises:
            SpaceError: file, key, what was expected, what came, the nearest right name.
        """
        with raised_as(SpaceError):
            document, place = read("search_spaces", reference)
            with inside(place):
                known_keys(document, KEYS, "")
                if "place" not in document:
                    raise SpaceError("a space needs `place`, a list of placements")
                return cls(**document)

    def on(self, backbone: Shape | int, cost: Cost | None = None) -> BoundSpace:
        """The space on one backbone, given as its shape or its number of layers.

        Args:
            backbone: what the selectors, groups and budgets refer to.
            cost: `(method, options, layer) -> trainable elements`; sizes of `fill` need it.

        Raises:
            SpaceError: groups, selectors or a budget that the backbone cannot meet.
        """
        if isinstance(backbone, int):
            backbone = Shape(tuple(LayerShape("", 0, (), ()) for _ in range(backbone)), 0)
        return BoundSpace(self, backbone, cost)
