"""One decision of a bound space: its name, its values, its place in the unit interval."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from autopeft.core.options import is_finite
from autopeft.space.domain import Choice, Range, Tree

Value = Any


@dataclass(frozen=True)
class Dimension:
    """A decision with a finite list of values, or a continuous range.

    Attributes:
        name: path of the domain and the group or layer that it is decided for.
        values: what is recorded for each alternative; None for a continuous range.
        span: the continuous range, else None.
    """

    name: str
    values: tuple[Value, ...] | None
    span: Range | None = None

    @classmethod
    def of(cls, name: str, domain: Choice | Range) -> Dimension:
        """The decision that a domain asks for."""
        if isinstance(domain, Choice):
            return cls(name, _labels(domain))
        return cls(name, domain.grid, domain)

    @classmethod
    def switch(cls, name: str) -> Dimension:
        """A yes or no."""
        return cls(name, (False, True))

    @property
    def ordered(self) -> bool:
        """Whether neighbouring values are more alike than distant ones."""
        return self.values is None or all(is_finite(value) for value in self.values)

    @property
    def absent(self) -> Value | None:
        """The value that leaves a placement out of a group, 0 or False; else None."""
        return next((value for value in self.values or () if value in (0, False)), None)

    def distribution(self) -> BaseDistribution:
        """The decision for Optuna."""
        span = self.span
        if span is None or (span.log and span.step not in (None, 1)):
            return CategoricalDistribution(self.values or ())
        high = self.values[-1] if self.values else span.high
        if span.integer:
            step = 1 if span.log else int(span.step or 1)
            return IntDistribution(int(span.low), int(high), log=span.log, step=step)
        return FloatDistribution(span.low, high, log=span.log, step=span.step)

    def index(self, value: Value) -> int:
        """Where `value` stands among `values`.

        Raises:
            ValueError: it does not stand there.
        """
        values, span = self.values or (), self.span
        if span is not None:
            place = round((value - span.low) / (span.step or 1))
            if 0 <= place < len(values) and math.isclose(values[place], value, rel_tol=1e-9):
                return place
        else:
            for i, known in enumerate(values):
                if type(known) is type(value) and known == value:
                    return i
        raise ValueError(f"{value!r} is not a value of {self.name}")

    def to_unit(self, value: Value) -> float:
        """The value as a number in [0, 1]."""
        if self.values is not None:
            return self.index(value) / max(1, len(self.values) - 1)
        low, high = self._bounds()
        return (self._scaled(value) - low) / (high - low) if high > low else 0.0

    def from_unit(self, u: float) -> Value:
        """The value nearest to a number in [0, 1]."""
        u = min(max(float(u), 0.0), 1.0)
        if self.values is not None:
            return self.values[round(u * (len(self.values) - 1))]
        low, high = self._bounds()
        scaled = low + u * (high - low)
        value = math.exp(scaled) if self.span and self.span.log else scaled
        return min(max(value, self.span.low), self.span.high) if self.span else value

    def sample(self, rng: np.random.Generator) -> Value:
        """A uniform value; uniform in the logarithm for log ranges without a grid of their own."""
        span = self.span
        if self.values is None:
            return self.from_unit(float(rng.random()))
        if span is not None and span.log:
            scaled = np.log(np.asarray(self.values, dtype=float))
            drawn = rng.uniform(scaled[0], scaled[-1])
            return self.values[int(np.abs(scaled - drawn).argmin())]
        return self.values[int(rng.integers(len(self.values)))]

    def move(self, value: Value, rng: np.random.Generator) -> Value:
        """Another value: a neighbouring one where values are ordered, else any."""
        if self.values is None:
            return self.from_unit(self.to_unit(value) + rng.normal(0.0, 0.15))
        if len(self.values) == 1:
            return value
        here = self.index(value)
        if self.ordered and rng.random() < 0.8:
            steps = [i for i in (here - 1, here + 1) if 0 <= i < len(self.values)]
        else:
            steps = [i for i in range(len(self.values)) if i != here]
        return self.values[steps[int(rng.integers(len(steps)))]]

    def _bounds(self) -> tuple[float, float]:
        assert self.span is not None
        return self._scaled(self.span.low), self._scaled(self.span.high)

    def _scaled(self, value: float) -> float:
        return math.log(value) if self.span is not None and self.span.log else float(value)


def _labels(domain: Choice) -> tuple[Value, ...]:
    items = domain.items
    if all(item is None or isinstance(item, bool | int | float | str) for item in items):
        return items
    labels = tuple(_label(item) for item in items)
    if len(set(labels)) == len(labels):
        return labels
    return tuple(f"{i}: {label}" for i, label in enumerate(labels))


def _label(item: Any) -> str:
    if isinstance(item, Tree):
        method = item.get("method")
        return str(method) if method else ", ".join(f"{k}={_label(v)}" for k, v in item.entries)
    if isinstance(item, tuple):
        return " + ".join(_label(part) for part in item) or "none"
    if isinstance(item, Range):
        return f"{item.low:g}..{item.high:g}"
    if isinstance(item, Choice):
        return "|".join(_label(part) for part in item.items)
    return str(item)
