"""Scales and shifts of what linears and norms return: SSF, and norm tuning."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from torch import Tensor

from autopeft.core.methods import NormTuning, Ssf
from autopeft.core.shape import LayerShape
from autopeft.method.lora import OfLinears, of
from autopeft.method.method import OUTPUT, Base, Change, Fold, Method, Site, Weight, Weights


class Affine(Method[OfLinears]):
    """Makes of what a linear or norm returns (1 + scale) y + bias, both zero at the start.

    That is the same with other weights; a bias there is only where the linear or norm has one.
    """

    merges: ClassVar[bool] = True

    def part(self, site: Site, weights: Weights) -> Change:
        bias = weights.get("bias")

        def change(y: Tensor, training: bool) -> Tensor:
            scaled = y * weights["scale"]
            return scaled if bias is None else scaled + bias

        return Change(site.at, change, (OUTPUT,))

    def fold(self, site: Site, weights: Weights, base: Base) -> Fold:
        scale, bias = weights["scale"], weights.get("bias")
        weight = base.scale * scale.view(-1, *[1] * (base.weight.dim() - 1))
        if bias is None or base.bias is None:
            return Fold(weight=weight)
        return Fold(weight=weight, bias=base.bias * scale + bias)


def _norms(layer: LayerShape) -> Iterator[Site]:
    return (_site(norm.name, norm.width, norm.width, norm.bias) for norm in layer.norms)


def _site(name: str, width: int, elements: int, bias: bool) -> Site:
    """The site at a linear or norm whose weight has so many elements."""
    scale, shift = Weight("scale", (width,)), Weight("bias", (width,))
    weights = (scale, shift) if bias else (scale,)
    changes = {f"{name}.weight": elements, **({f"{name}.bias": width} if bias else {})}
    return Site(name, name, weights, changes)


class NormTuningMethod(Affine[NormTuning]):
    """Trains the scales and biases of the norms.

    References:
        Zhao et al., "Tuning LayerNorm in Attention: Towards Efficient Multi-Modal LLM Finetuning",
        2023, section 2.
    """

    example: ClassVar[Mapping[str, Any]] = {}

    def looks_for(self) -> str:
        return "norm"

    def sites(self, layer: LayerShape) -> tuple[Site, ...]:
        return tuple(_norms(layer))


class SsfMethod(Affine[Ssf]):
    """Scales and shifts what leaves the linears at `targets` and, with `norms`, all norms.

    References:
        Lian et al., "Scaling & Shifting Your Features: A New Baseline for Efficient Model Tuning",
        2022, equations 2 and 3.
    """

    example: ClassVar[Mapping[str, Any]] = {"targets": ("q", "o", "down"), "norms": True}

    def looks_for(self) -> str:
        return f"linear named {' or '.join(self.options.targets)}"

    def sites(self, layer: LayerShape) -> tuple[Site, ...]:
        linears = (
            _site(linear.role, linear.outputs, linear.inputs * linear.outputs, linear.bias)
            for linear in layer.linears
            if of(linear.role, self.options.targets)
        )
        return (*linears, *(_norms(layer) if self.options.norms else ()))
