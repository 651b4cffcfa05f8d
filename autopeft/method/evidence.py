"""What training examples say of a linear."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Evidence(ABC):
    """A statistic of one linear that takes in one training example after the other.

    Each example comes by itself, without padding, and the model is in eval mode.
    """

    @abstractmethod
    def watch(
        self, linear: nn.Module, columns: slice | Tensor | None, undo: ExitStack
    ) -> tuple[Tensor, ...]:
        """Takes in what passes some columns of a linear, or all, until `undo` closes.

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

    def watch(
        self, linear: nn.Module, columns: slice | Tensor | None, undo: ExitStack
    ) -> tuple[Tensor, ...]:
        def take(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            self.take(inputs[0].detach().flatten(0, -2).float())

        undo.callback(linear.register_forward_pre_hook(take).remove)
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


class Fisher(Evidence):
    """The places of the n elements of a weight with most empirical Fisher information, ascending.

    That is the mean over examples of the squared gradient of the loss by the weight of that shape,
    (outputs, inputs).

    References:
        Sung et al., "Training Neural Networks with Fixed Sparse Masks", 2021.
    """

    def __init__(self, n: int, shape: tuple[int, int]) -> None:
        self._n, self._sum = n, torch.zeros(shape)

    def watch(
        self, linear: nn.Module, columns: slice | Tensor | None, undo: ExitStack
    ) -> tuple[Tensor, ...]:
        self._sum = self._sum.to(linear.get_parameter("weight").device)
        probe = self._sum.new_zeros(()).expand_as(self._sum).requires_grad_()

        def observe(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
            observed: Tensor = _Observed.apply(output, inputs[0], probe, columns)
            return observed

        def take(weight: Tensor) -> None:
            assert weight.grad is not None
            self._sum += weight.grad.square_()
            weight.grad = None

        undo.callback(linear.register_forward_hook(observe, prepend=True).remove)
        undo.callback(probe.register_post_accumulate_grad_hook(take).remove)
        return (probe,)

    def tensor(self) -> Tensor:
        return self._sum.flatten().topk(self._n).indices.sort().values


class _Observed(torch.autograd.Function):
    """The output of a linear as it is; the gradient of its weight goes to `probe`."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, x: Tensor, probe: Tensor, columns: Any) -> Tensor:
        ctx.save_for_backward(x)
        ctx.columns = columns
        return output.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (x,) = ctx.saved_tensors
        own = gradient if ctx.columns is None else gradient[..., ctx.columns]
        of_weight = own.flatten(0, -2).float().T @ x.flatten(0, -2).float()
        return gradient, None, of_weight, None
