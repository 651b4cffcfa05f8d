"""Attaches one configuration to a backbone, merges it, and takes it off again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from autopeft.core.config import PeftConfig, Placement
from autopeft.core.errors import AttachError
from autopeft.method.hook import TrainedSite
from autopeft.method.member import Member, draw
from autopeft.method.method import Base, Change, Fold
from autopeft.method.pack import Pack
from autopeft.method.registry import METHODS, describe
from autopeft.method.sites import LINEARS, Columns
from autopeft.method.start import start, starts_from_data

HOLDER = "autopeft"
"""The module of a model whose parameters are what is trained on it."""


def attach(
    model: PreTrainedModel,
    config: PeftConfig,
    *,
    modules_to_save: Sequence[str] = (),
    seed: int = 0,
    state: Mapping[str, Tensor] | None = None,
    examples: Iterable[Mapping[str, Tensor]] = (),
) -> Attached:
    """Puts the placements of `config` on `model`, in place, and freezes everything else.

    The new tensors are those of `draw` or of `state`. They are parameters of the model until it is
    detached or merged, in a module `autopeft` that does nothing: optimizers find them there.

    Args:
        model: the backbone, on any device, also `meta`.
        config: the placements; `train` and `backbone` are not read.
        modules_to_save: paths of modules, such as the task head, that are trained as a whole, on
            float32 copies.
        seed: of the new tensors.
        state: see `Attached.state_dict`, whose tensors are copied.
        examples: of the training, from which some methods start where there is no `state`: the
            arguments of the model for one at a time, with its `labels`.

    Raises:
        AttachError: a bad option; a layer, site or module that the model does not have; attention
            that cannot take a prefix; a model that carries a configuration already; a `state` that
            does not fit, or neither that nor examples for a method that starts from them.
    """
    member = draw(model, config, modules_to_save=modules_to_save, seed=seed)
    if state is not None:
        member.load_state_dict(state)
    pack = Pack(model, modules_to_save)
    pack.join(member)
    if state is None and model.device.type != "meta":
        try:
            _start(model, member, list(examples))
        except Exception:
            pack.close()
            raise
    model.add_module(HOLDER, _Tensors(member))
    return Attached(pack, member)


def _start(
    model: PreTrainedModel, member: Member, examples: Sequence[Mapping[str, Tensor]]
) -> None:
    """Lets what starts from data do so."""
    waiting = [site for site in member.sites if starts_from_data(site)]
    if waiting and not examples:
        reason = "starts from training examples: give attach some, or the state of a training"
        raise AttachError(reason, describe(waiting[0].placed.placement))
    start(model, waiting, lambda: (model(**example).loss for example in examples))


class _Tensors(nn.Module):
    """The tensors that a member has beside those of the model, as parameters."""

    def __init__(self, member: Member) -> None:
        super().__init__()
        for name, parameter in member.trainable().items():
            if name not in member.saved:
                self.register_parameter(name.replace(".", "-"), parameter)


class Attached:
    """A configuration on a backbone, until `detach` or `merge`.

    Attributes:
        model: the backbone that was given, changed in place.
        config: the configuration on it.
    """

    def __init__(self, pack: Pack, member: Member) -> None:
        self.model = pack.model
        self.config = member.config
        self._pack = pack
        self._member = member

    def trainable(self) -> dict[str, nn.Parameter]:
        """Every trained tensor by name: `layers.3.lora.self.q.A`, `head.classifier.weight`."""
        return self._member.trainable()

    @property
    def sites(self) -> tuple[TrainedSite, ...]:
        """The placements, site by site, with their tensors."""
        return self._member.sites

    def state_dict(self) -> dict[str, Tensor]:
        """What `load_state_dict` puts back, sharing its memory.

        That is all of `trainable` under its names, and what is not trained but starts from data.
        """
        return self._member.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Copies the values of `state`, which holds exactly the tensors of `state_dict`.

        Raises:
            AttachError: missing or unexpected names, or another shape; nothing is copied then.
        """
        self._member.load_state_dict(state)

    def unmergeable(self) -> tuple[Placement, ...]:
        """The placements that `merge` refuses: adapters, prefixes, LoRA on quantized linears."""
        refused = {
            trained.placed.placement for trained in self._member.sites if not _merges(trained)
        }
        return tuple(placement for placement in self.config.placements if placement in refused)

    def merge(self) -> None:
        """Writes the trained tensors into the model, which is a plain transformers model then.

        Changes of weights are added in float32; dtypes stay. `detach` does nothing afterwards.

        Raises:
            AttachError: placements that do not merge, by name; nothing is changed then.
        """
        if not self._pack.members:
            raise AttachError("the configuration is no longer on the model")
        refused = self.unmergeable()
        if refused:
            names = "; ".join(map(describe, refused))
            quantized = any(METHODS[placement.method].merges for placement in refused)
            why = " (quantized linears take no LoRA)" if quantized else ""
            raise AttachError(f"cannot be merged into the backbone{why}", names)
        _fold_all(self._member.sites)
        self.detach()
        for each in self._member.saved.values():
            each.settle()

    def detach(self) -> None:
        """Takes everything off: the model is, bit for bit, what was given to `attach`."""
        self._pack.close()
        if hasattr(self.model, HOLDER):
            delattr(self.model, HOLDER)


def _merges(trained: TrainedSite) -> bool:
    weight = trained.module.get_parameter("weight")
    into_weight = any(name.endswith(".weight") for name in trained.placed.site.changes)
    if not trained.placed.method.merges or trained.is_gated:
        return False
    return weight.is_floating_point() or not into_weight


@torch.no_grad()
def _fold_all(sites: Iterable[TrainedSite]) -> None:
    """Folds in the order in which hooks apply: what sees no change, then outputs, then inputs."""
    at_once: list[tuple[TrainedSite, Fold]] = []
    ordered: list[TrainedSite] = []
    for trained in sites:
        part = trained.part
        assert isinstance(part, Change)
        if part.is_ordered:
            ordered.append(trained)
        else:
            at_once.append((trained, _fold(trained)))
    for trained, fold in at_once:
        _change(trained, fold)
    for side in ("output", "input"):
        for trained in ordered:
            if cast("Change", trained.part).side == side:
                _change(trained, _fold(trained))


def _fold(trained: TrainedSite) -> Fold:
    """The change of a site to its module as that is now."""
    return trained.placed.method.fold(trained.placed.site, trained.tensors, base_of(trained))


@torch.no_grad()
def base_of(trained: TrainedSite) -> Base:
    """The module of a site as it is now."""
    weight = trained.base_weight()
    if not weight.is_floating_point():
        return Base(weight)
    wide = torch.promote_types(weight.dtype, torch.float32)
    has_bias = getattr(trained.module, "bias", None) is not None
    bias = trained.base_bias().to(wide) if has_bias else None
    return Base(weight.to(wide), bias, _shift(trained.module))


def _shift(norm: nn.Module) -> float:
    """What a norm adds to its weight, as Gemma's do; 0 of others and of linears."""
    if isinstance(norm, LINEARS):
        return 0.0
    weight = norm.get_parameter("weight")
    ones = torch.linspace(1, 2, weight.numel(), device=weight.device).to(weight.dtype)
    kept = weight.detach().clone()
    weight.zero_()
    alone = type(norm).forward(norm, ones) - (
        0 if getattr(norm, "bias", None) is None else norm.bias
    )
    weight.copy_(kept)
    return 1.0 if bool(alone.any()) else 0.0


def _change(trained: TrainedSite, fold: Fold) -> None:
    module = trained.module
    rows = slice(None) if trained.columns is None else trained.columns
    if fold.weight is not None:
        weight = module.get_parameter("weight")
        _add(weight.T if isinstance(module, Conv1D) else weight, rows, fold.weight)
    if fold.bias is not None:
        _add(module.get_parameter("bias"), rows, fold.bias)


def _add(tensor: Tensor, rows: Columns, change: Tensor) -> None:
    """Adds to some rows in float32 or better and rounds once."""
    wide = tensor[rows].to(torch.promote_types(tensor.dtype, change.dtype)) + change
    tensor[rows] = wide.to(tensor.dtype)
