"""A Gaussian process whose kernel says what configurations are: sums of effects that interact."""

from __future__ import annotations

import copy
import math
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import minimize
from threadpoolctl import threadpool_limits
from torch import Tensor

from autopeft.objective.array import Array

N_STEPS = 60
"""Steps of the optimiser of the hyperparameters at most."""

_JITTER = 1e-6
_LEAST_NOISE = 1e-4

_BOUNDS = (-7.0, 7.0)
"""Of the logarithms of the hyperparameters."""

_MEAN = 1.0
"""Variance of the mean of all values, which are standardised."""

_EXPECTED = (0.0, -2.0, -1.0, -3.0)
"""Logarithms of the scales and the noise that their priors are about."""

_WIDTH, _WEIGHT_WIDTH = 1.5, 1.0
"""Deviations of the normal priors of the logarithms of the scales and the noise, and of weights."""


@dataclass(frozen=True)
class _Kernel:
    """Covariances of standardised values.

    k(x, y) = s1 l(x, y) + s2 l(x, y)^2 + s3 exp(-|x - y|^2 / 2), with l(x, y) the product and
    |x - y| the distance of the centred features, both weighted by column: main effects, effects of
    pairs, and whatever else is smooth.

    Attributes:
        weights: of the columns, shape (columns,).
        scales: s1, s2 and s3.
        noise: variance of an observation.
    """

    weights: Tensor
    scales: Tensor
    noise: Tensor

    @classmethod
    def of(cls, theta: Tensor) -> _Kernel:
        """From the logarithms of the scales and the noise, then those of the weights."""
        return cls(theta[4:].exp(), theta[:3].exp(), theta[3].exp() + _LEAST_NOISE)

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """Covariances (n, k) of rows (n, columns) and (k, columns)."""
        weighted = x * self.weights
        linear = weighted @ y.T / x.shape[1]
        a, b = (weighted * x).sum(1), (y * self.weights * y).sum(1)
        distance = (a[:, None] + b - 2 * x.shape[1] * linear).clamp_min(0.0) / x.shape[1]
        s1, s2, s3 = self.scales
        return s1 * linear + s2 * linear.square() + s3 * torch.exp(-distance / 2) + _MEAN

    def diagonal(self, x: Tensor) -> Tensor:
        """Variances (n,) of rows (n, columns)."""
        linear = (x * self.weights * x).sum(1) / x.shape[1]
        s1, s2, s3 = self.scales
        return s1 * linear + s2 * linear.square() + s3 + _MEAN


class Surrogate:
    """The posterior of one loss given features of configurations.

    Features are centred and scaled to unit variance; hyperparameters are the most probable ones
    under priors that prefer few, additive effects. Sums take one thread of float64, so that equal
    data give equal numbers.

    Args:
        rows: features of the observed, shape `(n, d)`, `n` at least 2.
        losses: shape `(n,)`, finite.
        doubt: variance of each loss beside the noise of a training, shape `(n,)`.
        weights: of the features that their priors are about, shape `(d,)`; None for equal ones.

    Attributes:
        mean: of the losses.

    Raises:
        RuntimeError: the hyperparameters cannot be found.
    """

    def __init__(
        self, rows: Array, losses: Array, doubt: Array, weights: Array | None = None
    ) -> None:
        self._shift, spread = rows.mean(0), rows.std(0)
        self._stretch = np.where(spread > 1e-9, spread, 1.0)
        self.mean, std = float(losses.mean()), float(losses.std())
        self._std = std if std > 0 else 1.0
        self._take(rows, losses, doubt)
        weights = np.ones(rows.shape[1]) if weights is None else weights
        self._kernel = self._most_probable(np.append(_EXPECTED, np.log(weights)))
        self._solve()

    @property
    def noise(self) -> float:
        """Variance of a loss when the same configuration is trained with another seed."""
        return float(self._kernel.noise) * self._std**2

    def __call__(self, rows: Array) -> tuple[Array, Array]:
        """Means and variances of the loss without noise, each `(k,)`, at features `(k, d)`."""
        x = self._scaled(rows)
        cross = self._kernel(x, self._x)
        mean = (cross @ self._alpha)[:, 0]
        half = torch.linalg.solve_triangular(self._factor, cross.T, upper=False)
        variance = (self._kernel.diagonal(x) - half.square().sum(0)).clamp_min(1e-12)
        return mean.numpy() * self._std + self.mean, variance.numpy() * self._std**2

    def believing(self, rows: Array) -> Surrogate:
        """The posterior once the losses at some features `(k, d)` are what this one expects."""
        if not len(rows):
            return self
        features = self._x.numpy() * self._stretch + self._shift
        losses = self._y.numpy() * self._std + self.mean
        believed = copy.copy(self)
        believed._take(
            np.concatenate([features, rows]),
            np.concatenate([losses, self(rows)[0]]),
            np.append(self._doubt.numpy() * self._std**2, np.zeros(len(rows))),
        )
        believed._solve()
        return believed

    def _take(self, rows: Array, losses: Array, doubt: Array) -> None:
        self._x = self._scaled(rows)
        self._y = torch.from_numpy((losses - self.mean) / self._std)
        self._doubt = torch.from_numpy(doubt / self._std**2)

    def _solve(self) -> None:
        self._factor = self._decomposed(self._kernel)
        self._alpha = torch.cholesky_solve(self._y[:, None], self._factor)

    def _scaled(self, rows: Array) -> Tensor:
        return torch.from_numpy((rows - self._shift) / self._stretch)

    def _decomposed(self, kernel: _Kernel) -> Tensor:
        """The Cholesky factor of the covariance of the observed, (n, n)."""
        noise = kernel.noise + self._doubt + _JITTER
        return torch.linalg.cholesky(kernel(self._x, self._x) + torch.diag(noise))

    def _most_probable(self, expected: Array) -> _Kernel:
        """The kernel, where logarithms of scales, noise and weights are expected."""
        centres = torch.from_numpy(expected)
        n_weights = len(expected) - len(_EXPECTED)
        widths = torch.tensor([_WIDTH] * len(_EXPECTED) + [_WEIGHT_WIDTH] * n_weights)

        def improbability(values: Array) -> tuple[float, Array]:
            theta = torch.tensor(values, requires_grad=True)
            prior = ((theta - centres) / widths).square().sum() / 2
            loss = prior + self._misfit(_Kernel.of(theta))
            loss.backward()
            assert theta.grad is not None
            return loss.item(), theta.grad.numpy()

        optimum = minimize(
            improbability,
            expected,
            jac=True,
            method="L-BFGS-B",
            bounds=[_BOUNDS] * len(expected),
            options={"maxiter": N_STEPS},
        )
        if not math.isfinite(optimum.fun):
            raise RuntimeError("the hyperparameters of the model are not finite")
        return _Kernel.of(torch.from_numpy(optimum.x))

    def _misfit(self, kernel: _Kernel) -> Tensor:
        """The negative logarithm of the likelihood, but for a constant."""
        factor = self._decomposed(kernel)
        half = torch.linalg.solve_triangular(factor, self._y[:, None], upper=False)
        return half.square().sum() / 2 + factor.diagonal().log().sum()


def one_thread() -> AbstractContextManager[object]:
    """Lets torch and NumPy take one thread, so that sums do not depend on the number of cores.

    The arrays are small: more threads would wait for each other most of the time.
    """
    return threadpool_limits(1)
