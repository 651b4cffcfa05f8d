"""A plain transformers model with the trained changes inside its weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import torch
from torch import nn

from autopeft.exporter.exporter import Exporter, Obstacle, Trained, path_of
from autopeft.model.hub import quiet


class Merged(Exporter):
    """What `save_pretrained` writes of a model, for transformers alone.

    Weights keep the dtype in which the backbone is held.
    """

    library: ClassVar[str] = "transformers"

    def obstacles(self, trained: Trained) -> tuple[Obstacle, ...]:
        if getattr(trained.model.config, "quantization_config", None) is not None:
            reason = "is quantized, and adding to its weights would round the change away"
            return (Obstacle(None, f"{reason}; hold it in float32 or bfloat16"),)
        with trained.attached() as attached:
            stuck = attached.unmergeable()
        return tuple(Obstacle(placement, "does not merge into weights") for placement in stuck)

    def write(self, trained: Trained, folder: Path) -> None:
        with _restored(trained.model, _touched(trained)):
            with trained.attached() as attached:
                attached.merge()
            with quiet():
                trained.model.save_pretrained(folder)

    def loads(self, trained: Trained) -> str:
        return trained.loads('"FOLDER"')


def _touched(trained: Trained) -> set[str]:
    """Names of the model's parameters that merging changes or replaces."""
    names = set()
    for placed, layer in trained.placed():
        for name in placed.site.changes:
            at, _, leaf = name.rpartition(".")
            names.add(f"{path_of(layer, at)}.{leaf}")
    for path in trained.backbone.modules_to_save:
        module = trained.model.get_submodule(path)
        names |= {name for name, _ in module.named_parameters(prefix=path)}
    return names


@contextmanager
def _restored(model: nn.Module, names: Iterable[str]) -> Iterator[None]:
    """Puts the parameters `names` back afterwards, bit for bit."""
    parameters = {name: model.get_parameter(name) for name in names}
    values = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    try:
        yield
    finally:
        with torch.no_grad():
            for name, parameter in parameters.items():
                owner, _, leaf = name.rpartition(".")
                parameter.copy_(values[name])
                model.get_submodule(owner).register_parameter(leaf, parameter)
