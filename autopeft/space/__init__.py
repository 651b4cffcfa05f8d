"""The DSL: YAML or Python to a `SearchSpace`; a configuration is a space with no choice left."""

from autopeft.space.bound import BoundSpace, Drawn
from autopeft.space.document import Layers
from autopeft.space.domain import choice, integer, real, subset
from autopeft.space.placement import Adapter, BitFit, Lora, Prefix
from autopeft.space.space import SearchSpace

__all__ = [
    "Adapter",
    "BitFit",
    "BoundSpace",
    "Drawn",
    "Layers",
    "Lora",
    "Prefix",
    "SearchSpace",
    "choice",
    "integer",
    "real",
    "subset",
]
