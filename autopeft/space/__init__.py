"""The DSL: YAML or Python to a `SearchSpace`; a configuration is a space with no choice left."""

from autopeft.space.bound import BoundSpace
from autopeft.space.domain import choice, integer, real, subset
from autopeft.space.space import Layers, SearchSpace

__all__ = [
    "BoundSpace",
    "Layers",
    "SearchSpace",
    "choice",
    "integer",
    "real",
    "subset",
]
