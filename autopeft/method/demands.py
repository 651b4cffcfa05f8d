"""What methods demand of an architecture."""

from __future__ import annotations

from collections.abc import Iterable

from transformers import PreTrainedModel

from autopeft.core.errors import AttachError
from autopeft.method.attention import check_routes
from autopeft.method.insertion import check_layers
from autopeft.method.registry import METHODS
from autopeft.method.sites import layers_of, shape_of
from autopeft.method.text import check_open, is_causal


def check_methods(model: PreTrainedModel, methods: Iterable[str]) -> None:
    """Raises AttachError for a method that needs what `model` does not let it reach."""
    for method in methods:
        if METHODS[method].in_attention:
            check_routes(model, f"which {method} needs")
        if METHODS[method].lengthens:
            check_layers(model, method)
        if METHODS[method].goes_along:
            _check_widths(model, method)


def _check_widths(model: PreTrainedModel, method: str) -> None:
    widths = {layer.width for layer in shape_of(model).layers if layer.linear("self.k")}
    if len(widths) > 1:
        several = ", ".join(map(str, sorted(widths)))
        reason = f"has layers of several widths ({several}), and {method} goes along all of them"
        raise AttachError(f"{type(model).__name__} {reason}")


def check_gates(model: PreTrainedModel, option: str) -> None:
    """Raises AttachError for a model of which every layer is causal; `option` wants a gate."""
    layers = layers_of(model)
    if all(map(is_causal, layers)):
        check_open(layers[0], option)
