"""Backbones as numbers, without weights."""

from __future__ import annotations

from autopeft.core.shape import LayerShape, Linear, Norm, Shape


def encoder(n_layers: int, width: int, parameters: int) -> Shape:
    """A BERT as numbers."""
    roles = {f"self.{role}": (width, width) for role in "qkvo"}
    roles |= {"up": (width, 4 * width), "down": (4 * width, width)}
    linears = tuple(Linear(role, *sizes, bias=True) for role, sizes in roles.items())
    norms = tuple(Norm(f"norm{i}", width, bias=True) for i in range(2))
    return Shape(tuple(LayerShape("", width, linears, norms) for _ in range(n_layers)), parameters)


MINILM = encoder(6, 384, 22_713_216)
BERT = encoder(12, 768, 109_482_240)
