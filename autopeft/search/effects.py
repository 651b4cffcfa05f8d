"""What the choices of a space do to a loss, as far as trained configurations tell."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from autopeft.core.config import PeftConfig, Placement, freeze
from autopeft.core.options import is_finite
from autopeft.core.settings import TrainSettings
from autopeft.core.size import size_of, size_option
from autopeft.objective.array import Array
from autopeft.search.features import Encoder
from autopeft.search.tempered import tempered

N_LEAST = 12
"""Trials below which nothing is told."""

N_TOLD = 300
"""Trials that are asked, the latest of them: more tell little more."""

N_CHANGED = 30
"""Configurations over which an effect is averaged."""

N_SIDE = 3
"""Trials that a choice needs on both of its sides."""

_PENALTIES = np.logspace(-2, 4, 25)
"""Ratios of the noise to what columns are expected to do, of which the likeliest one is taken."""

_TRAIN = TrainSettings().model_dump()

Change = Callable[[PeftConfig], PeftConfig]


@dataclass(frozen=True)
class Effect:
    """What a choice does to a loss on average, over configurations that have it.

    Attributes:
        what: the choice, for people.
        loss: by how much it changes the loss, everything else as it is; negative is better.
        deviation: the standard deviation of that.
        is_size: whether it is a larger size beside a smaller one.
    """

    what: str
    loss: float
    deviation: float
    is_size: bool = False


@dataclass(frozen=True)
class _Question:
    what: str
    configs: Sequence[PeftConfig]
    chosen: Change
    other: Change
    is_size: bool = False


def effects(configs: Sequence[PeftConfig], losses: Array) -> list[Effect]:
    """The effects of methods in each half of the layers, of sizes and of settings, largest first.

    A linear model of what samplers see of configurations tells them; its penalty is the likeliest
    one (Bishop, "Pattern Recognition and Machine Learning", 2006, equations 3.49 to 3.55 and 3.86).

    Args:
        configs: `n` that were trained.
        losses: shape `(n,)`, finite.

    Returns:
        None of them where too few are trained.
    """
    if len(configs) < N_LEAST or not np.ptp(losses):
        return []
    n_layers = 1 + max((layer for config in configs for layer in config.layers), default=0)
    asked = list(_questions(configs, n_layers))
    pairs = [([q.chosen(c) for c in q.configs], [q.other(c) for c in q.configs]) for q in asked]
    encode = Encoder([*configs, *(c for pair in pairs for side in pair for c in side)], n_layers)
    weights, covariance = _fitted(encode(configs), tempered(losses))
    told = []
    for question, (chosen, other) in zip(asked, pairs, strict=True):
        contrast = (encode(chosen) - encode(other)).mean(axis=0)
        deviation = float(np.sqrt(max(0.0, contrast @ covariance @ contrast)))
        told.append(Effect(question.what, float(contrast @ weights), deviation, question.is_size))
    return sorted(told, key=lambda effect: effect.loss)


def _fitted(rows: Array, losses: Array) -> tuple[Array, Array]:
    """Weights (columns,) of a linear model and their covariance, of the likeliest penalty."""
    centred, wanted = rows - rows.mean(axis=0), losses - losses.mean()
    n, columns = centred.shape
    left, sizes, right = np.linalg.svd(centred, full_matrices=False)
    along = left.T @ wanted
    outside = float(wanted @ wanted - along @ along)

    def fit(penalty: float) -> tuple[float, float]:
        """The negative logarithm of the likelihood, and the variance of the noise."""
        shares = penalty / (sizes**2 + penalty)
        noise = (float(shares @ along**2) + outside) / n
        return n * np.log(noise + 1e-300) - float(np.log(shares).sum()), noise

    penalty = min(_PENALTIES, key=lambda each: fit(each)[0])
    _, noise = fit(penalty)
    weights = right.T @ (sizes / (sizes**2 + penalty) * along)
    inside = right.T * (noise / (sizes**2 + penalty)) @ right
    beside = noise / penalty * (np.eye(columns) - right.T @ right)
    return weights, inside + beside


def _questions(configs: Sequence[PeftConfig], n_layers: int) -> Iterator[_Question]:
    middle = (n_layers + 1) // 2
    halves = {"the lower half": range(middle), "the upper half": range(middle, n_layers)}
    for method in sorted({p.method for config in configs for p in config.placements}):
        for half, layers in halves.items():
            having = [c for c in configs if _stands(c, method, layers)]
            if N_SIDE <= len(having) <= len(configs) - N_SIDE:
                what = f"{method} in {half}"
                yield _Question(what, _some(having), _same, _without(method, layers))
        yield from _of_sizes(configs, method)
    yield from _of_settings(configs)


def _of_sizes(configs: Sequence[PeftConfig], method: str) -> Iterator[_Question]:
    name = size_option(method)
    having = [c for c in configs if any(p.method == method for p in c.placements)]
    sizes = sorted(size_of(p) for c in having for p in c.placements if p.method == method)
    if name is None or len(having) < 2 * N_SIDE or sizes[0] == sizes[-1]:
        return
    large, small = sizes[-1], max(s for s in sizes if s < sizes[-1])
    what = f"{method} {name} {large:g} rather than {small:g}"
    chosen, other = _with_size(method, name, large), _with_size(method, name, small)
    yield _Question(what, _some(having), chosen, other, is_size=True)


def _of_settings(configs: Sequence[PeftConfig]) -> Iterator[_Question]:
    """Of every setting of the training that varies, a high value beside a low one."""
    rows: list[Mapping[str, Any]] = [_TRAIN | dict(config.train) for config in configs]
    for name in sorted({name for config in configs for name, _ in config.train}):
        values = [float(row[name]) for row in rows if is_finite(row.get(name))]
        if len(values) < 2 * N_SIDE or min(values) == max(values):
            continue
        low, high = np.quantile(values, [0.15, 0.85], method="nearest")
        if low < high:
            what = f"{name} {high:.2g} rather than {low:.2g}"
            chosen, other = _with_setting(name, float(high)), _with_setting(name, float(low))
            yield _Question(what, _some(configs), chosen, other)


def _some(configs: Sequence[PeftConfig]) -> Sequence[PeftConfig]:
    return configs[:: -(-len(configs) // N_CHANGED)]


def _stands(config: PeftConfig, method: str, layers: range) -> bool:
    return any(p.method == method and set(p.layers) & set(layers) for p in config.placements)


def _same(config: PeftConfig) -> PeftConfig:
    return config


def _without(method: str, layers: range) -> Change:
    def change(config: PeftConfig) -> PeftConfig:
        placements = [
            replace(p, layers=tuple(each for each in p.layers if each not in layers))
            if p.method == method
            else p
            for p in config.placements
        ]
        return replace(config, placements=tuple(p for p in placements if p.layers))

    return change


def _with_size(method: str, option: str, size: float) -> Change:
    def sized(placement: Placement) -> Placement:
        if placement.method != method:
            return placement
        return replace(placement, options=freeze({**dict(placement.options), option: size}))

    return lambda config: replace(config, placements=tuple(map(sized, config.placements)))


def _with_setting(name: str, value: float) -> Change:
    return lambda config: replace(config, train=freeze({**dict(config.train), name: value}))
