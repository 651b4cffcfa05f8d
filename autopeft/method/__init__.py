"""PEFT methods: where they sit, what they compute, how they attach to a backbone."""

from autopeft.method.attach import Attached, attach
from autopeft.method.count import Counts, count, size_of
from autopeft.method.registry import METHODS
from autopeft.method.sites import shape_of

__all__ = ["METHODS", "Attached", "Counts", "attach", "count", "shape_of", "size_of"]
