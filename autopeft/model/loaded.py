"""What is checked of a model that has just been loaded, and its head."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from transformers import PreTrainedModel

from autopeft.core.errors import StudyError
from autopeft.method.sites import layers_of

Loaded = tuple[PreTrainedModel, Mapping[str, Iterable[Any]]]
"""A model, and what transformers says about its loading."""

_HEAD_SEED = 0


def drawn(info: Mapping[str, Iterable[Any]]) -> set[str]:
    """Names of the tensors that a checkpoint lacks or has in another shape.

    Args:
        info: what transformers says about the loading.
    """
    mismatched = {key[0] if isinstance(key, tuple) else key for key in info["mismatched_keys"]}
    return {*info["missing_keys"], *mismatched}


def check_loaded(info: Mapping[str, Iterable[Any]], head: Sequence[str]) -> None:
    """Refuses a checkpoint that leaves any module but the head with random weights."""
    fresh = sorted(key for key in drawn(info) if not _is_below(key, head))
    if fresh:
        raise StudyError(
            f"the checkpoint lacks {len(fresh)} tensors of the backbone, first {fresh[0]!r}",
            "model",
        )


def check_layers(source: str, model: PreTrainedModel, expected: PreTrainedModel) -> None:
    """Refuses a model whose layers are not where its configuration puts them."""
    differing = _paths(model) ^ _paths(expected)
    if differing:
        reason = "is not loaded as its config.json describes: only one of them has"
        raise StudyError(f"{source!r} {reason} {min(differing)!r}", "model")


def draw_head(model: PreTrainedModel, head: Sequence[str], lacking: Iterable[str]) -> None:
    """Draws what lies outside the pretrained part anew where the checkpoint brought some of it."""
    outside = [name for name in head if not name.startswith(f"{model.base_model_prefix}.")]
    for name in outside:
        parts = model.get_submodule(name)
        parameters = dict(parts.named_parameters(prefix=name))
        if not parameters.keys() <= set(lacking):
            for parameter in parameters.values():
                parameter._is_hf_initialized = False  # else transformers leaves it as it is
            with seeded():
                parts.apply(model._init_weights)


@contextmanager
def seeded() -> Iterator[None]:
    """The same random numbers inside the block in every process, the old state after it."""
    with torch.random.fork_rng():
        torch.manual_seed(_HEAD_SEED)
        yield


def _paths(model: PreTrainedModel) -> set[str]:
    """Where the linears and norms of the layers are."""
    layers = layers_of(model)
    linears = {site.path for layer in layers for site in layer.linears.values()}
    return linears.union(*(layer.norms for layer in layers))


def _is_below(key: str, modules: Sequence[str]) -> bool:
    return any(key.startswith(f"{name}.") for name in modules)
