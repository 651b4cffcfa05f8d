"""What an export format is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from autopeft.core.config import PeftConfig, Placement
from autopeft.core.declaration import GATING
from autopeft.core.errors import AttachError, ExportError
from autopeft.core.methods import DECLARATIONS
from autopeft.exporter.sample import arranged, reads, sample_of
from autopeft.method.attach import Attached, attach
from autopeft.method.gate import parted
from autopeft.method.registry import Placed, build, place
from autopeft.method.sites import Layer, layers_of, shape_of
from autopeft.model.backbone import Backbone
from autopeft.model.hub import as_code


@dataclass(frozen=True)
class Trained:
    """A configuration with its trained tensors and the backbone that they belong to.

    Attributes:
        state: `Attached.state_dict()` after training, the head included.
    """

    backbone: Backbone
    config: PeftConfig
    state: Mapping[str, Tensor]

    @property
    def model(self) -> PreTrainedModel:
        """The model of the backbone."""
        return self.backbone.model

    @contextmanager
    def attached(self) -> Iterator[Attached]:
        """The backbone with the trained tensors on it, and as it was afterwards.

        Raises:
            ExportError: the tensors are not those of the configuration on this backbone.
        """
        saved = self.backbone.modules_to_save
        try:
            attached = attach(self.model, self.config, modules_to_save=saved, state=self.state)
            try:
                yield attached
            finally:
                attached.detach()
        except AttachError as error:
            raise ExportError(f"the trained tensors do not fit: {error}") from error

    def settled(self) -> Trained:
        """The same with the simpler methods that some of its methods are once they are trained.

        Raises:
            ExportError: the tensors are not those of the configuration on this backbone.
        """
        after = {placement: _settled(placement) for placement in self.config.placements}
        if all(placement == simple for placement, simple in after.items()):
            return self
        config = PeftConfig.of(after.values(), dict(self.config.train), dict(self.config.backbone))
        places: dict[Hashable, list[Placed]] = {}
        for placed in place(config, shape_of(self.model)):
            at = placed.layer, placed.site.name, placed.placement.method, placed.placement.options
            places.setdefault(at, []).append(placed)
        with self.attached() as attached, torch.no_grad():
            own = {name for name in self.state if name.startswith("head.")}
            state = {name: self.state[name] for name in own}
            for site in attached.sites:
                simple = after[site.placed.placement]
                at = site.placed.layer, site.placed.site.name, simple.method, simple.options
                plain, gate = parted(site.tensors)
                weights = {**site.placed.method.settled_weights(plain), **gate}
                there = places[at].pop(0)
                kept = (weight for weight in there.site.weights if weight.is_kept)
                state |= {there.name(w): weights[w.name].detach().clone() for w in kept}
        return Trained(self.backbone, config, state)

    def loads_base(self) -> str:
        """Python code that makes `model` the backbone, with the config of the folder `FOLDER`."""
        own_head = ", ignore_mismatched_sizes=True" if self.backbone.modules_to_save else ""
        base = as_code(self.model.name_or_path)
        code = self.loads(base, own_head)
        if base.startswith("str(files("):
            code = f"from importlib.resources import files\n{code}"
        if not self.model.can_generate():
            return code
        settings = 'model.generation_config = GenerationConfig.from_pretrained("FOLDER")'
        return f"from transformers import GenerationConfig\n{code}\n{settings}"

    def loads(self, weights: str, options: str = "") -> str:
        """Python code that makes `model` of weights, with the config of the folder `FOLDER`."""
        kind, trust = type(self.model).__name__, ""
        if self.model._auto_class:  # its code comes with the checkpoint
            kind, trust = str(self.model._auto_class), ", trust_remote_code=True"
        return (
            f"from transformers import AutoConfig\nfrom transformers import {kind}\n"
            f'config = AutoConfig.from_pretrained("FOLDER"{trust})\n'
            f"model = {kind}.from_pretrained({weights}, config=config{options}{trust})"
        )

    def placed(self) -> tuple[tuple[Placed, Layer], ...]:
        """Every site of the configuration with its layer in the model."""
        layers = layers_of(self.model)
        return tuple((p, layers[p.layer]) for p in place(self.config, shape_of(self.model)))


def _settled(placement: Placement) -> Placement:
    """What the method of a placement says that it is when it is trained."""
    simple = build(placement).settled
    if simple is None:
        return placement
    method, options = simple
    gating = {name: value for name, value in placement.options if name == GATING}
    options = DECLARATIONS[method].said({**options, **gating})
    return Placement.of(method, placement.layers, options)


def path_of(layer: Layer, at: str) -> str:
    """The path inside the model of the linear of a role, or of a norm, which is its name."""
    return layer.linears[at].path if at in layer.linears else at


def head_tensors(model: nn.Module, paths: Iterable[str]) -> dict[str, Tensor]:
    """The tensors of whole modules under their names in the model."""
    return {
        f"{path}.{name}": tensor.detach().clone()
        for path in paths
        for name, tensor in model.get_submodule(path).state_dict().items()
    }


@dataclass(frozen=True)
class Obstacle:
    """Why a format cannot hold a configuration.

    Attributes:
        placement: the one in the way, None where the backbone is.
        reason: the rest of a sentence that begins with it.
    """

    placement: Placement | None
    reason: str


class Exporter(ABC):
    """One format of a folder with a trained configuration.

    Attributes:
        library: the one that loads the folder.
        holds_gates: whether placements may be gated there.
    """

    library: ClassVar[str]
    holds_gates: ClassVar[bool] = True

    @abstractmethod
    def obstacles(self, trained: Trained) -> tuple[Obstacle, ...]:
        """Everything that keeps `trained` from this format; empty where it can be written."""

    @abstractmethod
    def write(self, trained: Trained, folder: Path) -> None:
        """Fills the empty `folder`, where there is no obstacle; leaves the backbone as it was.

        Raises:
            ExportError: the tensors are not those of the configuration on this backbone.
        """

    @abstractmethod
    def loads(self, trained: Trained) -> str:
        """Python code that makes `model` of the folder `FOLDER`."""

    def usage(self, trained: Trained) -> str:
        """Python code that loads the folder `FOLDER` and asks it, for the model card."""
        asked = sample_of(trained.backbone)
        outputs = "import torch\nwith torch.no_grad():\n    outputs = model(**inputs)\n"
        reader = reads(trained.backbone, generates=True)
        said = asked.generated or f"{outputs}{asked.said}"
        return arranged(self.loads(trained), reader, asked.given, asked.read, said)
