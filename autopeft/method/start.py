"""Lets tensors start from what training examples say of their sites."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import chain, islice

import torch
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from autopeft.method.evidence import Evidence
from autopeft.method.hook import TrainedSite


def starts_from_data(site: TrainedSite) -> bool:
    """Whether some tensor of a site does."""
    return any(weight.from_data for weight in site.placed.site.weights)


def start(
    model: nn.Module, sites: Iterable[TrainedSite], losses: Callable[[], Iterable[Tensor]]
) -> None:
    """Makes the tensors of sites that start from data, which are on `model`.

    Args:
        model: computes without dropout meanwhile.
        sites: with fresh tensors.
        losses: of training examples, one a forward pass, each a scalar; no more than are needed
            are computed.
    """
    kinds: dict[int, list[tuple[Evidence, TrainedSite, Tensor]]] = {}
    for site in sites:
        for weight in site.placed.site.weights:
            if weight.from_data is not None:
                started = weight.from_data.evidence(), site, site.tensors[weight.name]
                kinds.setdefault(weight.from_data.n_examples, []).append(started)
    with _without_dropout(model):
        for n_examples, all_started in kinds.items():
            _take_in(all_started, islice(losses(), n_examples))
    with torch.no_grad():
        for evidence, _, tensor in chain(*kinds.values()):
            rows = evidence.tensor()
            tensor[: len(rows)] = rows


def _take_in(
    started: Iterable[tuple[Evidence, TrainedSite, Tensor]], losses: Iterable[Tensor]
) -> None:
    """Lets statistics see the passes that make the losses, and backward passes if they want."""
    with ExitStack() as undo:
        watched = (
            evidence.watch(site.module, site.layer.columns(site.placed.site.at), undo)
            for evidence, site, _ in started
        )
        leaves = [*chain(*watched)]
        undo.enter_context(torch.set_grad_enabled(bool(leaves)))
        for loss in losses:
            if leaves:
                loss.backward(inputs=leaves)


@contextmanager
def _without_dropout(model: nn.Module) -> Iterator[None]:
    """Eval mode, but layers compute again in the backward pass where they do in training."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    for module in modes:
        if isinstance(module, GradientCheckpointingLayer):
            module.training = module.gradient_checkpointing
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
