"""Lets tensors start from what training examples say of their sites."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice

import torch
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from autopeft.method.evidence import Evidence
from autopeft.method.hook import TrainedSite
from autopeft.method.method import Weight


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
    seen = taken_in(model, sites, losses)
    with torch.no_grad():
        for evidence, tensor in seen:
            rows = evidence.tensor()
            tensor[: len(rows)] = rows


def taken_in(
    model: nn.Module, sites: Iterable[TrainedSite], losses: Callable[[], Iterable[Tensor]]
) -> list[tuple[Evidence, Tensor]]:
    """What the examples say for each tensor that `start` makes, which is left as it is."""
    seen: list[tuple[Evidence, Tensor]] = []
    for n_examples, waiting in _by_examples(sites).items():
        with ExitStack() as undo:
            undo.enter_context(_without_dropout(model))
            leaves: list[Tensor] = []
            for site, weight, evidence in waiting:
                leaves += evidence.watch(site, undo)
                seen.append((evidence, site.tensors[weight.name]))
            undo.enter_context(torch.set_grad_enabled(bool(leaves)))
            for loss in islice(losses(), n_examples):
                if leaves:
                    loss.backward(inputs=leaves)
    return seen


def _by_examples(
    sites: Iterable[TrainedSite],
) -> dict[int, list[tuple[TrainedSite, Weight, Evidence]]]:
    """What starts from data, by how many examples that takes in."""
    found: dict[int, list[tuple[TrainedSite, Weight, Evidence]]] = {}
    for site in sites:
        for weight in site.placed.site.weights:
            if weight.from_data is not None:
                waiting = site, weight, weight.from_data.evidence()
                found.setdefault(weight.from_data.n_examples, []).append(waiting)
    return found


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
