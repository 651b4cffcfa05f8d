"""PEFT methods: where they sit, what they compute, how they attach to a backbone."""

from autopeft.method.attach import Attached, attach
from autopeft.method.count import Counts, count, trained_elements
from autopeft.method.member import Member, draw
from autopeft.method.pack import Pack
from autopeft.method.registry import METHODS, lowest_layer
from autopeft.method.sites import shape_of

__all__ = [
    "METHODS",
    "Attached",
    "Counts",
    "Member",
    "Pack",
    "attach",
    "count",
    "draw",
    "lowest_layer",
    "shape_of",
    "trained_elements",
]
