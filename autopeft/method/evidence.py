"""What training examples say of a linear."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Watched(Protocol):
    """A site while examples pass it."""

    @property
    def module(self) -> nn.Module:
        """The linear at which it is."""

    @property
    def columns(self) -> slice | Tensor | None:
        """Those of the outputs of that linear which are its own, None for all."""

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        """Its tensors by name, as they are drawn."""

    @property
    def reader(self) -> nn.Module | None:
        """The linear whose input is read there; None where what leaves that of the site is."""


class Evidence(ABC):
    """A statistic of one site that takes in one training example after the other.

    Each example comes by itself, without padding, and the model is in eval mode.
    """

    @abstractmethod
    def watch(self, site: Watched, undo: ExitStack) -> tuple[Tensor, ...]:
        """Takes in what passes a site, until `undo` closes.

        Returns the leaves of the graph whose gradients it wants.
        """

    @abstractmethod
    def tensor(self) -> Tensor:
        """What it makes of all examples, the first rows of a tensor."""


class Directions(Evidence):
    """The directions in which the inputs of a linear vary most, largest first, (n, inputs).

    They come from an incremental singular value decomposition of the centered inputs, which keeps
    twice as many as are asked for.

    References:
        Ross et al., "Incremental Learning for Robust Visual Tracking", 2008;
        Paischer et al., "One Initialization to Rule them All: Fine-tuning via Explained Variance
        Adaptation", 2024.
    """

    def __init__(self, n: int) -> None:
        self._n, self._seen = n, 0
        self._mean, self._scaled = torch.zeros(()), torch.zeros(0)

    def watch(self, site: Watched, undo: ExitStack) -> tuple[Tensor, ...]:
        def take(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            self.take(inputs[0].detach().flatten(0, -2).float())

        undo.callback(site.module.register_forward_pre_hook(take).remove)
        return ()

    def take(self, x: Tensor) -> None:
        """Adds inputs of the linear, (positions, inputs)."""
        total, mean = self._seen + len(x), x.mean(0)
        rows = [x - mean]
        if self._seen:
            between = (self._seen * len(x) / total) ** 0.5 * (self._mean - mean)
            rows = [self._scaled, *rows, between[None]]
        _, sizes, right = torch.linalg.svd(torch.cat(rows), full_matrices=False)
        self._scaled = (sizes[:, None] * right)[: 2 * self._n]
        self._mean = self._mean.to(x) + (mean - self._mean.to(x)) * (len(x) / total)
        self._seen = total

    def tensor(self) -> Tensor:
        sizes = self._scaled.norm(dim=1)
        found = self._scaled[sizes > 1e-5 * sizes.max()][: self._n]
        signs = found.gather(1, found.abs().argmax(1, keepdim=True)).sign()
        return F.normalize(found) * signs


class OfGradients(Evidence):
    """The places of the n elements of a tensor whose gradients make them the first, ascending."""

    def __init__(self, n: int, shape: tuple[int, int]) -> None:
        self._n, self._sum = n, torch.zeros(shape)

    @abstractmethod
    def of_gradient(self, site: Watched, x: Tensor, gradient: Tensor) -> Tensor:
        """That of the tensor, of x and of what leaves the site, (positions, width)."""

    @abstractmethod
    def add(self, gradient: Tensor) -> None:
        """Takes in the gradient of the loss of an example, which it may change."""

    def scores(self) -> Tensor:
        """Of all elements."""
        return self._sum

    def tensor(self) -> Tensor:
        return self.scores().flatten().topk(self._n).indices.sort().values

    def watch(self, site: Watched, undo: ExitStack) -> tuple[Tensor, ...]:
        self._sum = self._sum.to(site.module.get_parameter("weight").device)
        probe = self._sum.new_zeros(()).expand_as(self._sum).requires_grad_()
        entered: list[Tensor] = []

        def enter(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            entered[:] = inputs[:1]

        def of_gradient(x: Tensor, gradient: Tensor) -> Tensor:
            own = gradient if site.columns is None else gradient[..., site.columns]
            return self.of_gradient(site, *(t.flatten(0, -2).float() for t in (x, own)))

        def observe(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
            read = entered.pop() if site.reader else output
            observed: Tensor = _Observed.apply(output, read.detach(), probe, of_gradient)
            return observed

        def take(weight: Tensor) -> None:
            assert weight.grad is not None
            self.add(weight.grad)
            weight.grad = None

        if site.reader is not None:
            undo.callback(site.reader.register_forward_pre_hook(enter).remove)
        undo.callback(site.module.register_forward_hook(observe, prepend=True).remove)
        undo.callback(probe.register_post_accumulate_grad_hook(take).remove)
        return (probe,)


class Fisher(OfGradients):
    """The places of the n elements of a weight with most empirical Fisher information, ascending.

    That is the mean over examples of the squared gradient of the loss by the weight of that shape,
    (outputs, inputs).

    References:
        Sung et al., "Training Neural Networks with Fixed Sparse Masks", 2021.
    """

    def of_gradient(self, site: Watched, x: Tensor, gradient: Tensor) -> Tensor:
        return gradient.T @ x

    def add(self, gradient: Tensor) -> None:
        self._sum += gradient.square_()


class Snip(OfGradients):
    """The places of the n elements of a tensor to which the loss is most sensitive, ascending.

    That is its size times that of its gradient, of the mean loss of all examples.

    Args:
        of: the name of the tensor among those of the site.
        gradient: that of it, of all those tensors, of what is read and of the gradient of what
            leaves the site, (positions, width).

    References:
        Lee et al., "SNIP: Single-shot Network Pruning based on Connection Sensitivity", 2019,
        equation 6.
    """

    def __init__(
        self,
        n: int,
        shape: tuple[int, int],
        of: str,
        gradient: Callable[[Mapping[str, Tensor], Tensor, Tensor], Tensor],
    ) -> None:
        super().__init__(n, shape)
        self._of, self._gradient, self._sizes = of, gradient, torch.zeros(())

    def of_gradient(self, site: Watched, x: Tensor, gradient: Tensor) -> Tensor:
        self._sizes = site.tensors[self._of]
        return self._gradient(site.tensors, x, gradient)

    def add(self, gradient: Tensor) -> None:
        self._sum += gradient

    def scores(self) -> Tensor:
        return (self._sum * self._sizes).abs()


class _Observed(torch.autograd.Function):
    """The output of a linear as it is; what `of_gradient` makes of x and its gradient is `probe`'s.

    x is what is read there, (..., width).
    """

    @staticmethod
    def forward(ctx: Any, output: Tensor, x: Tensor, probe: Tensor, of_gradient: Any) -> Tensor:
        ctx.save_for_backward(x)
        ctx.of_gradient = of_gradient
        return output.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (x,) = ctx.saved_tensors
        return gradient, None, ctx.of_gradient(x, gradient), None
