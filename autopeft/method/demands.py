"""What methods demand of an architecture."""

from __future__ import annotations

from collections.abc import Iterable

from transformers import PreTrainedModel

from autopeft.method.attention import check_routes
from autopeft.method.insertion import check_layers
from autopeft.method.registry import METHODS


def check_methods(model: PreTrainedModel, methods: Iterable[str]) -> None:
    """Raises AttachError for a method that needs what `model` does not let it reach."""
    for method in methods:
        if METHODS[method].in_attention:
            check_routes(model, f"which {method} needs")
        if METHODS[method].lengthens:
            check_layers(model, method)
