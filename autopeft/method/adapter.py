"""Adapters: a bottleneck after a sublayer or beside it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeVar

from torch import Tensor
from torch.nn import functional as F

from autopeft.core.methods import Adapter
from autopeft.method.method import Change, Site, Weight, Weights
from autopeft.method.sublayers import Sublayers

ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "gelu": F.gelu}

Bottleneck = TypeVar("Bottleneck", bound=Adapter)


class Bottlenecks(Sublayers[Bottleneck]):
    """A method with an adapter after or beside some sublayers, whatever makes its matrices."""

    @abstractmethod
    def matrix_weights(self, name: str, inputs: int, outputs: int) -> tuple[Weight, ...]:
        """The tensors of the matrix of the projection `down` or `up`."""

    @abstractmethod
    def matrix(self, name: str, weights: Weights, shape: tuple[int, int]) -> Tensor:
        """The matrix of a projection, of shape (outputs, inputs)."""

    @property
    def as_adapter(self) -> tuple[str, Mapping[str, Any]]:
        """The adapter of the same form and size, with its options."""
        return "adapter", {name: getattr(self.options, name) for name in Adapter.options()}

    def bias_weights(self, name: str, outputs: int) -> tuple[Weight, ...]:
        """The tensors of the bias of a projection, if it has one."""
        return (Weight(f"{name}.bias", (outputs,)),) if self.options.bias else ()

    def projection(
        self, name: str, weights: Weights, shape: tuple[int, int], training: bool
    ) -> tuple[Tensor, Tensor | None]:
        """The matrix, of shape (outputs, inputs), and the bias of a projection."""
        return self.matrix(name, weights, shape), weights.get(f"{name}.bias")

    def part(self, site: Site, weights: Weights) -> Change:
        activation, scale = ACTIVATIONS[self.options.activation], self.options.scale
        (outputs, inputs), size = site.shape, self.options.size

        def change(x: Tensor, training: bool) -> Tensor:
            down = self.projection("down", weights, (size, inputs), training)
            up = self.projection("up", weights, (outputs, size), training)
            outer = F.linear(activation(F.linear(x, *down)), *up)
            return outer if scale == 1 else outer * scale

        return Change(site.at, change, (self.reads(site),))

    def weights(self, inputs: int, outputs: int) -> tuple[Weight, ...]:
        size = self.options.size
        matrices = (
            self.matrix_weights("down", inputs, size),
            self.matrix_weights("up", size, outputs),
        )
        biases = self.bias_weights("down", size), self.bias_weights("up", outputs)
        return tuple(weight for group in (*matrices, *biases) for weight in group)


class Masked(Bottlenecks[Bottleneck]):
    """A method whose adapters have matrices with zeros; trained, they are plain adapters."""

    @property
    def settled(self) -> tuple[str, Mapping[str, Any]]:
        return self.as_adapter

    def settled_weights(self, weights: Weights) -> Weights:
        biases = {name: tensor for name, tensor in weights.items() if name.endswith(".bias")}
        matrices = {f"{at}.weight": self.matrix(at, weights, (0, 0)) for at in ("down", "up")}
        return {**matrices, **biases}


class AdapterMethod(Bottlenecks[Adapter]):
    """Adds scale * (W_up act(W_down x + b) + c) to the output of a sublayer, before the residual.

    x is that output itself (`sequential`) or the input of the sublayer (`parallel`); with `at:
    attention` the sublayers are all attentions of a layer, self and cross. W_down (size, width) is
    drawn uniformly within 1/sqrt(width); W_up, b and c are zero, and absent without `bias`. The
    adapter of AdapterFusion (Pfeiffer et al. 2021) reads the norm of that output and the residual,
    which no adapter here does.

    References:
        Houlsby et al., "Parameter-Efficient Transfer Learning for NLP", 2019, section 2;
        He et al., "Towards a Unified View of Parameter-Efficient Transfer Learning", 2022, table 1.
    """

    nests: ClassVar[bool] = True
    example: ClassVar[Mapping[str, Any]] = {
        "form": "parallel",
        "at": "both",
        "size": 5,
        "activation": "gelu",
        "bias": True,
        "scale": 2.0,
    }

    def matrix_weights(self, name: str, inputs: int, outputs: int) -> tuple[Weight, ...]:
        if name == "up":
            return (Weight("up.weight", (outputs, inputs)),)
        return (Weight("down.weight", (outputs, inputs), "uniform", inputs**-0.5),)

    def matrix(self, name: str, weights: Weights, shape: tuple[int, int]) -> Tensor:
        return weights[f"{name}.weight"]
