"""What methods demand of an architecture."""

from __future__ import annotations

from collections.abc import Iterable

from transformers import PreTrainedModel

from autopeft.method.attention import check_routes
from autopeft.method.insertion import check_layers
from autopeft.method.registry import METHODS
from autopeft.method.sites import layers_of
from autopeft.method.text import check_open, is_causal


def check_methods(model: PreTrainedModel, methods: Iterable[str]) -> None:
    """Raises AttachError for a method that needs what `model` does not let it reach."""
    for method in methods:
        if METHODS[method].in_attention:
            check_routes(model, f"which {method} needs")
        if METHODS[method].lengthens:
            check_layers(model, method)


def check_gates(model: PreTrainedModel, option: str) -> None:
    """Raises AttachError for a model of which every layer is causal; `option` wants a gate."""
    layers = layers_of(model)
    if all(map(is_causal, layers)):
        check_open(layers[0], option)
