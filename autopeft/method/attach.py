"""Attaches a configuration to a backbone, and takes it off again; nothing else touches one."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from autopeft.core.config import PeftConfig, Placement
from autopeft.core.errors import AttachError
from autopeft.method import attention, hook
from autopeft.method.method import Context, Part, Weight
from autopeft.method.registry import METHODS, Placed, describe, place
from autopeft.method.sites import Columns, Layer, layers_of, shape_of

_MARK = "autopeft_attached"


def attach(
    model: PreTrainedModel,
    config: PeftConfig,
    *,
    modules_to_save: Sequence[str] = (),
    seed: int = 0,
) -> Attached:
    """Puts the placements of `config` on `model`, in place, and freezes everything else.

    New tensors are float32 on the device of their site and drawn by name from `seed`, so that
    equal placements start equally and no global random state is touched. They are not parameters
    of the model: `Attached.trainable` has them, and moving the model leaves them behind.

    Args:
        model: the backbone, on any device, also `meta`.
        config: the placements; `train` and `backbone` are not read.
        modules_to_save: paths of modules, such as the task head, that are trained as a whole, on
            float32 copies.
        seed: of the new tensors.

    Raises:
        AttachError: a bad option; a layer, site or module that the model does not have; attention
            that cannot take a prefix; a model that carries a configuration already.
    """
    if hasattr(model, _MARK):
        raise AttachError(f"{type(model).__name__} carries a configuration; detach it first")
    layers = layers_of(model)
    placed = place(config, shape_of(model))
    saved = _copies(model, modules_to_save)
    sites = {p.key: _draw_site(p, layers[p.layer], seed) for p in placed}
    parts = [(layers[p.layer], p.method.part(p.site, sites[p.key])) for p in placed]
    if any(isinstance(part, Context) for _, part in parts):
        attention.check_routes(model)
    with ExitStack() as undo:
        _freeze(model, undo)
        _install(model, parts, undo)
        for path in modules_to_save:
            hook.in_float32(model.get_submodule(path), undo)
        weights = {f"{key}.{name}": w for key, site in sites.items() for name, w in site.items()}
        return Attached(_Backbone(model, layers, undo.pop_all()), config, placed, weights, saved)


@dataclass(frozen=True)
class _Backbone:
    """A model that carries something, its layers, and how to take that off."""

    model: PreTrainedModel
    layers: Sequence[Layer]
    undo: ExitStack


@dataclass(frozen=True)
class _Saved:
    """A parameter of the model that is trained as a float32 copy."""

    module: nn.Module
    name: str
    original: nn.Parameter
    copy: nn.Parameter

    def use(self, parameter: nn.Parameter) -> None:
        """Makes `parameter` the module's own."""
        self.module.register_parameter(self.name, parameter)

    def settle(self) -> None:
        """Leaves the trained values in the model, in the dtype of the original."""
        trained = self.copy.detach().to(self.original.dtype)
        self.use(nn.Parameter(trained, self.original.requires_grad))


class Attached:
    """A configuration on a backbone, until `detach` or `merge`.

    Attributes:
        model: the backbone that was given, changed in place.
        config: the configuration on it.
    """

    def __init__(
        self,
        backbone: _Backbone,
        config: PeftConfig,
        placed: Sequence[Placed],
        weights: Mapping[str, nn.Parameter],
        saved: Mapping[str, _Saved],
    ) -> None:
        self.model = backbone.model
        self.config = config
        self._backbone = backbone
        self._placed = placed
        self._saved = saved
        self._weights = {**weights, **{name: each.copy for name, each in saved.items()}}
        self._active = True
        for each in saved.values():
            each.use(each.copy)

    def trainable(self) -> dict[str, nn.Parameter]:
        """Every trained tensor by name: `layers.3.lora.self.q.A`, `head.classifier.weight`."""
        return dict(self._weights)

    def state_dict(self) -> dict[str, Tensor]:
        """The trained tensors under the names of `trainable`; they share its memory."""
        return {name: weight.detach() for name, weight in self._weights.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Copies the values of `state`, which holds exactly the tensors of `state_dict`.

        Raises:
            AttachError: missing or unexpected names, or another shape; nothing is copied then.
        """
        wrong = [f"missing {name}" for name in self._weights if name not in state]
        wrong += [f"unexpected {name}" for name in state if name not in self._weights]
        for name, weight in self._weights.items():
            if name in state and state[name].shape != weight.shape:
                was, now = tuple(weight.shape), tuple(state[name].shape)
                wrong.append(f"{name} must have shape {was}, got {now}")
        if wrong:
            raise AttachError("; ".join(wrong), "state")
        with torch.no_grad():
            for name, weight in self._weights.items():
                weight.copy_(state[name])

    def unmergeable(self) -> tuple[Placement, ...]:
        """The placements that `merge` refuses: adapters, prefixes, LoRA on quantized linears."""
        found = {p.placement for p in self._placed if not self._merges(p)}
        return tuple(placement for placement in self.config.placements if placement in found)

    def merge(self) -> None:
        """Writes the trained tensors into the model, which is a plain transformers model then.

        Changes of weights are added in float32; dtypes stay. `detach` does nothing afterwards.

        Raises:
            AttachError: placements that do not merge, by name; nothing is changed then.
        """
        if not self._active:
            raise AttachError("the configuration is no longer on the model")
        refused = self.unmergeable()
        if refused:
            names = "; ".join(map(describe, refused))
            quantized = any(METHODS[placement.method].merges for placement in refused)
            why = " (quantized linears take no LoRA)" if quantized else ""
            raise AttachError(f"cannot be merged into the backbone{why}", names)
        for placed in self._placed:
            self._fold(placed)
        self._release()
        for each in self._saved.values():
            each.settle()

    def detach(self) -> None:
        """Takes everything off: the model is, bit for bit, what was given to `attach`."""
        if not self._active:
            return
        self._release()
        for each in self._saved.values():
            each.use(each.original)

    def _release(self) -> None:
        self._active = False
        self._backbone.undo.close()

    def _merges(self, placed: Placed) -> bool:
        weight = self._backbone.layers[placed.layer].module(placed.site.at).get_parameter("weight")
        into_weight = any(name.endswith(".weight") for name in placed.site.changes)
        return placed.method.merges and (weight.is_floating_point() or not into_weight)

    @torch.no_grad()
    def _fold(self, placed: Placed) -> None:
        layer, site = self._backbone.layers[placed.layer], placed.site
        weights = {w.name: self._weights[f"{placed.key}.{w.name}"] for w in site.weights}
        fold = placed.method.fold(site, weights)
        module, columns = layer.module(site.at), layer.columns(site.at)
        rows = slice(None) if columns is None else columns
        if fold.weight is not None:
            weight = module.get_parameter("weight")
            _add(weight.T if isinstance(module, Conv1D) else weight, rows, fold.weight)
        if fold.bias is not None:
            _add(module.get_parameter("bias"), rows, fold.bias)


def _add(tensor: Tensor, rows: Columns, change: Tensor) -> None:
    """Adds to some rows in float32 or better and rounds once."""
    wide = tensor[rows].to(torch.promote_types(tensor.dtype, change.dtype)) + change
    tensor[rows] = wide.to(tensor.dtype)


def _copies(model: PreTrainedModel, paths: Sequence[str]) -> dict[str, _Saved]:
    """The parameters below `paths` with their copies, by name in the state."""
    modules = dict(model.named_modules())
    copies: dict[str, _Saved] = {}
    for path in paths:
        if path not in modules:
            raise AttachError(f"{type(model).__name__} has no module {path!r}", "modules_to_save")
        parameters = dict(modules[path].named_parameters(prefix=path))
        if not parameters or not all(p.is_floating_point() for p in parameters.values()):
            reason = f"module {path!r} has no parameters or quantized ones"
            raise AttachError(reason, "modules_to_save")
        for name, original in parameters.items():
            owner, _, leaf = name.rpartition(".")
            copy = nn.Parameter(original.detach().to(torch.float32, copy=True).contiguous())
            copies[f"head.{name}"] = _Saved(modules[owner], leaf, original, copy)
    return copies


def _draw_site(placed: Placed, layer: Layer, seed: int) -> dict[str, nn.Parameter]:
    device = layer.module(placed.site.at).get_parameter("weight").device
    return {
        weight.name: nn.Parameter(_draw(weight, f"{seed}:{placed.key}.{weight.name}", device))
        for weight in placed.site.weights
    }


def _draw(weight: Weight, name: str, device: torch.device) -> Tensor:
    """A float32 tensor, drawn on the CPU; the same name gives the same numbers everywhere."""
    if device.type == "meta":
        return torch.empty(weight.shape, device=device)
    digest = hashlib.sha256(name.encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
    tensor = torch.zeros(weight.shape)
    if weight.draw == "uniform":
        tensor.uniform_(-weight.scale, weight.scale, generator=generator)
    elif weight.draw == "normal":
        tensor.normal_(0.0, weight.scale, generator=generator)
    return tensor.to(device)


def _freeze(model: nn.Module, undo: ExitStack) -> None:
    setattr(model, _MARK, True)
    undo.callback(delattr, model, _MARK)
    for parameter in model.parameters():
        undo.callback(parameter.requires_grad_, parameter.requires_grad)
        parameter.requires_grad_(False)


def _install(model: PreTrainedModel, parts: Sequence[tuple[Layer, Part]], undo: ExitStack) -> None:
    contexts = [(layer, part) for layer, part in parts if isinstance(part, Context)]
    if contexts:
        attention.route(model, undo)
    for layer, context in contexts:
        attention.put(layer.attentions[context.attention], context, undo)
    edits = [(layer, part) for layer, part in parts if not isinstance(part, Context)]
    hook.edit_outputs(edits, undo)
