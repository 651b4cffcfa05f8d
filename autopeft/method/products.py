"""Changes of whole weights that few elements make: Hadamard and Kronecker products."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar

from torch import Tensor
from torch.nn import functional as F

from autopeft.core.methods import Hira, Loha, Lokr
from autopeft.core.shape import Linear
from autopeft.method.lora import BesideLinears, factors
from autopeft.method.method import INPUT, WEIGHT, Base, Change, Fold, Site, Weight, Weights

Options = TypeVar("Options", bound=Any)


class ChangesWeights(BesideLinears[Options]):
    """Adds delta x to the output of each target, delta (outputs, inputs)."""

    merges: ClassVar[bool] = True

    @property
    def dropout(self) -> float:
        """Of x."""
        return 0.0

    @abstractmethod
    def delta(self, weights: Weights, weight: Tensor | None) -> Tensor:
        """The change of a weight, (outputs, inputs), which is given if it is read."""

    def part(self, site: Site, weights: Weights) -> Change:
        def change(x: Tensor, *read: Any) -> Tensor:
            *base, training = read
            x = F.dropout(x, self.dropout, training) if self.dropout else x
            return F.linear(x, self.delta(weights, base[0] if base else None))

        return Change(site.at, change, (INPUT, WEIGHT) if self.reads_weights else (INPUT,))

    def fold(self, site: Site, weights: Weights, base: Base) -> Fold:
        return Fold(weight=self.delta(weights, base.weight))


class HiraMethod(ChangesWeights[Hira]):
    """delta is W * (B A), elementwise, of a rank as high as that of W.

    A (r, inputs) is drawn uniformly within 1/sqrt(inputs), B (outputs, r) is zero.

    References:
        Huang et al., "HiRA: Parameter-Efficient Hadamard High-Rank Adaptation for Large Language
        Models", 2025, equation 4.
    """

    nests: ClassVar[bool] = True
    example: ClassVar[Mapping[str, Any]] = {
        "targets": ("q", "v", "down"),
        "r": 4,
        "hira_dropout": 0.0,
    }

    @property
    def reads_weights(self) -> bool:
        return True

    @property
    def dropout(self) -> float:
        return self.options.hira_dropout

    def weights(self, linear: Linear) -> tuple[Weight, ...]:
        return factors(linear, self.options.r)

    def delta(self, weights: Weights, weight: Tensor | None) -> Tensor:
        assert weight is not None
        return weight * (weights["B"] @ weights["A"])


class LohaMethod(ChangesWeights[Loha]):
    """delta is alpha / r * (w1_a w1_b) * (w2_a w2_b), elementwise, of a rank up to r².

    w1_a and w2_a (outputs, r) and w1_b (r, inputs) are drawn uniformly within 1/sqrt(columns),
    w2_b (r, inputs) is zero.

    References:
        Hyeon-Woo et al., "FedPara: Low-Rank Hadamard Product for Communication-Efficient Federated
        Learning", 2022, proposition 1.
    """

    nests: ClassVar[bool] = True
    example: ClassVar[Mapping[str, Any]] = {"targets": ("q", "v", "down"), "r": 3, "alpha": 6.0}

    def weights(self, linear: Linear) -> tuple[Weight, ...]:
        r, tall, wide = (
            self.options.r,
            (linear.outputs, self.options.r),
            (self.options.r, linear.inputs),
        )
        return (
            Weight("w1_a", tall, "uniform", r**-0.5),
            Weight("w1_b", wide, "uniform", linear.inputs**-0.5),
            Weight("w2_a", tall, "uniform", r**-0.5),
            Weight("w2_b", wide),
        )

    def delta(self, weights: Weights, weight: Tensor | None) -> Tensor:
        one = weights["w1_a"] @ weights["w1_b"]
        return self.options.alpha / self.options.r * one * (weights["w2_a"] @ weights["w2_b"])


class LokrMethod(ChangesWeights[Lokr]):
    """delta is alpha / r times the Kronecker product of w1, the smaller one, and w2.

    Outputs and inputs are divided as evenly as they can be. w1 is zero; w2 is w2_a w2_b of rank r
    where 2 r is less than its longer side, and drawn uniformly within 1/sqrt(columns).

    References:
        Yeh et al., "Navigating Text-To-Image Customization: From LyCORIS Fine-Tuning to Model
        Evaluation", 2024, section 3.2; Edalati et al., "KronA", 2022, equation 4.
    """

    example: ClassVar[Mapping[str, Any]] = {"targets": ("q", "v", "down"), "r": 1, "alpha": 2.0}

    def weights(self, linear: Linear) -> tuple[Weight, ...]:
        r, (out_1, out_2) = self.options.r, _divided(linear.outputs)
        in_1, in_2 = _divided(linear.inputs)
        first = Weight("w1", (out_1, in_1))
        if 2 * r >= max(out_2, in_2):
            return first, Weight("w2", (out_2, in_2), "uniform", in_2**-0.5)
        return (
            first,
            Weight("w2_a", (out_2, r), "uniform", r**-0.5),
            Weight("w2_b", (r, in_2), "uniform", in_2**-0.5),
        )

    def delta(self, weights: Weights, weight: Tensor | None) -> Tensor:
        second = weights["w2"] if "w2" in weights else weights["w2_a"] @ weights["w2_b"]
        first = weights["w1"] * (self.options.alpha / self.options.r)
        product = first[:, None, :, None] * second[None, :, None, :]
        return product.flatten(2).flatten(0, 1)


def _divided(n: int) -> tuple[int, int]:
    """The two factors of a number that are nearest to each other, the smaller one first."""
    smaller = next(m for m in range(int(n**0.5), 0, -1) if n % m == 0)
    return smaller, n // smaller
