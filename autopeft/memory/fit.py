"""The cheapest settings with which the training of a configuration fits into a memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from autopeft.core.config import PeftConfig, freeze
from autopeft.core.settings import BackboneSettings, TrainSettings
from autopeft.memory.predict import Memory
from autopeft.memory.quantities import Setting

_QUANTIZATION = ("none", "int8", "nf4")
_CHECKPOINTING, _OFFLOADING = {"gradient_checkpointing": True}, {"activation_offloading": True}
_ACTIVATIONS: Mapping[str, tuple[Mapping[str, Any], ...]] = {
    "cuda": ({}, _CHECKPOINTING, _OFFLOADING, {**_CHECKPOINTING, **_OFFLOADING}),
    "cpu": ({}, _CHECKPOINTING),
}
"""What makes activations smaller on a device, by what it costs."""


@dataclass(frozen=True)
class Fit:
    """A configuration with settings that make its training small.

    Attributes:
        config: with the settings.
        memory: its predicted peak.
        fits: whether that is within the limit; otherwise no settings need less.
    """

    config: PeftConfig
    memory: Memory
    fits: bool


def fit(setting: Setting, config: PeftConfig, limit: float) -> Fit:
    """The first of some settings that fits, in the order of what they cost.

    Tried are: `config` itself; smaller micro-batches whose gradients accumulate, so that a step
    sees as many examples as before; gradient checkpointing, on CUDA also offloading and both, each
    with whole and then with smaller batches; all of that again on an int8 and on an nf4 backbone.
    What `config` says is only added to. Of micro-batches the largest that fits is taken.

    Args:
        setting: of the training, in which batches are as large as configurations say.
        config: what is trained; its batch size times its accumulation steps is kept.
        limit: bytes.

    Raises:
        AutoPeftError: as `predict_memory`.
    """

    def predicted(candidate: PeftConfig) -> Fit:
        memory = setting.memory(candidate)
        return Fit(candidate, memory, memory.peak <= limit)

    least: Fit | None = None
    checkpoints = setting.backbone.model.supports_gradient_checkpointing
    for form in _forms(config, setting.device, checkpoints):
        largest = _in_batches(form, predicted)
        if largest.fits:
            return largest
        if least is None or largest.memory.peak < least.memory.peak:
            least = largest
    assert least is not None  # one form at least is that of the configuration
    return least


def _forms(config: PeftConfig, device: str, checkpoints: bool) -> Iterator[PeftConfig]:
    """The configuration on every smaller form of the backbone, beginning with its own.

    Args:
        config: what is trained.
        device: `cuda` or `cpu`.
        checkpoints: whether the backbone supports gradient checkpointing.
    """
    given = BackboneSettings(**dict(config.backbone))
    smaller = _QUANTIZATION[_QUANTIZATION.index(given.quantization) :]
    seen = []
    for quantization, activations in product(smaller, _ACTIVATIONS[device]):
        changes = {"quantization": quantization, **activations}
        form = given.model_copy(update=changes)
        if form not in seen and (checkpoints or changes.keys().isdisjoint(_CHECKPOINTING)):
            seen.append(form)
            changed = {k: v for k, v in changes.items() if v != getattr(given, k)}
            yield replace(config, backbone=freeze({**dict(config.backbone), **changed}))


def _in_batches(form: PeftConfig, predicted: Callable[[PeftConfig], Fit]) -> Fit:
    """The form with the largest micro-batches that fit; if none does, what needs least."""
    sizes = _micro_batches(form)
    whole = predicted(sizes[0])
    if whole.fits or len(sizes) == 1:
        return whole
    largest = predicted(sizes[-1])
    if not largest.fits:
        return min(whole, largest, key=lambda each: each.memory.peak)
    low, high = 0, len(sizes) - 1  # that at `low` is too large, `largest` is that at `high`
    while high - low > 1:
        middle = (low + high) // 2
        tried = predicted(sizes[middle])
        if tried.fits:
            high, largest = middle, tried
        else:
            low = middle
    return largest


def _micro_batches(form: PeftConfig) -> list[PeftConfig]:
    """The same step in ever smaller equal micro-batches, beginning with those of `form`."""
    settings = TrainSettings(**dict(form.train))
    size, steps = settings.batch_size, settings.gradient_accumulation_steps
    parts = [n for n in range(2, size + 1) if size % n == 0]
    smaller = ({"batch_size": size // n, "gradient_accumulation_steps": steps * n} for n in parts)
    return [form, *(replace(form, train=freeze({**dict(form.train), **s})) for s in smaller)]
