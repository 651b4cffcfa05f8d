"""The DSL: YAML or Python to a `SearchSpace`; a configuration is a space with no choice left."""

from autopeft.space.bound import BoundSpace, Drawn
from autopeft.space.domain import choice, integer, real, subset
from autopeft.space.form import Layers
from autopeft.space.space import SearchSpace

__all__ = [
    "BoundSpace",
    "Drawn",
    "Layers",
    "SearchSpace",
    "choice",
    "integer",
    "real",
    "subset",
]
