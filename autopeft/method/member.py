"""The tensors of one configuration for one backbone."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from autopeft.core.config import LEARNING_RATE, PeftConfig
from autopeft.core.errors import AttachError
from autopeft.core.settings import TrainSettings
from autopeft.method import head
from autopeft.method.demands import check_methods
from autopeft.method.head import Saved
from autopeft.method.hook import TrainedSite
from autopeft.method.method import Weight
from autopeft.method.registry import Placed, describe, place
from autopeft.method.sites import LOST, Layer, layers_of, shape_of
from autopeft.method.text import check_open

_TOLD = 5
"""Tensors that do not fit that an error names."""


class Member:
    """The trained tensors of one configuration; nothing of it is on the backbone yet.

    Attributes:
        config: the configuration.
        modules_to_save: paths of the modules that are trained as a whole.
        sites: the placements, site by site.
        saved: the parameters of `modules_to_save` by name.
    """

    def __init__(
        self,
        config: PeftConfig,
        modules_to_save: Sequence[str],
        sites: Sequence[TrainedSite],
        saved: Mapping[str, Saved],
    ) -> None:
        self.config = config
        self.modules_to_save = tuple(modules_to_save)
        self.sites = tuple(sites)
        self.saved = saved
        self._kept = {
            trained.placed.name(weight): trained.tensors[weight.name]
            for trained in sites
            for weight in trained.placed.site.weights
            if weight.is_kept
        }
        self._kept |= {name: each.copy for name, each in saved.items()}

    @property
    def in_cache(self) -> bool:
        """Whether what is cached of a text says all that its parts need of it."""
        return all(trained.placed.method.in_cache for trained in self.sites)

    def trainable(self) -> dict[str, nn.Parameter]:
        """Every trained tensor by name: `layers.3.lora.self.q.A`, `head.classifier.weight`."""
        return {n: t for n, t in self._kept.items() if isinstance(t, nn.Parameter)}

    @property
    def groups(self) -> dict[float, list[nn.Parameter]]:
        """The trained tensors by their learning rates."""
        rate = TrainSettings(**dict(self.config.train)).learning_rate
        rates = dict.fromkeys((s.copy for s in self.saved.values()), rate)
        for trained in self.sites:
            own = dict(trained.placed.placement.options).get(LEARNING_RATE) or rate
            for weight in trained.placed.site.weights:
                if weight.trained:
                    rates[trained.weights[weight.name]] = own * weight.rate
        groups: dict[float, list[nn.Parameter]] = {rate: []}
        for parameter, of in rates.items():
            groups.setdefault(of, []).append(parameter)
        return groups

    def state_dict(self) -> dict[str, Tensor]:
        """What `load_state_dict` puts back, sharing its memory.

        That is all of `trainable` under its names, and what is not trained but starts from data.
        """
        return {name: tensor.detach() for name, tensor in self._kept.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Copies the values of `state`, which holds exactly the tensors of `state_dict`.

        Raises:
            AttachError: missing or unexpected names, or another shape; nothing is copied then.
        """
        wrong = [f"missing {name}" for name in self._kept if name not in state]
        wrong += [f"unexpected {name}" for name in state if name not in self._kept]
        for name, weight in self._kept.items():
            if name in state and state[name].shape != weight.shape:
                was, now = tuple(weight.shape), tuple(state[name].shape)
                wrong.append(f"{name} must have shape {was}, got {now}")
        if wrong:
            more = f"; and {len(wrong) - _TOLD} more" if len(wrong) > _TOLD else ""
            raise AttachError("; ".join(wrong[:_TOLD]) + more, "state")
        with torch.no_grad():
            for name, weight in self._kept.items():
                weight.copy_(state[name])


def draw(
    model: PreTrainedModel,
    config: PeftConfig,
    *,
    modules_to_save: Sequence[str] = (),
    seed: int = 0,
) -> Member:
    """The fresh tensors of `config` for `model`, which is left as it is.

    They are float32 on the device of their site and drawn by name from `seed`, so that equal
    placements start equally and no global random state is touched. What starts from data does so
    by `start`.

    Args:
        model: the backbone, on any device, also `meta`, also with a pack on it.
        config: the placements; `train` and `backbone` are not read.
        modules_to_save: paths of modules, such as the task head, that are trained as a whole, on
            float32 copies of what the backbone came with.
        seed: of the new tensors.

    Raises:
        AttachError: a bad option; a layer, site or module that the model does not have; attention
            that cannot take a prefix, layers that cannot take a prompt.
    """
    layers = layers_of(model)
    placed = place(config, shape_of(model))
    saved = head.copies(model, modules_to_save)
    shared: dict[str, Tensor] = {}
    sites = [_trained_site(each, layers[each.layer], seed, shared) for each in placed]
    _check_one(sites)
    for site in sites:
        if site.part.averages:
            check_open(site.layer, describe(site.placed.placement))
    check_methods(model, [placement.method for placement in config.placements])
    return Member(config, modules_to_save, sites, saved)


def _trained_site(
    placed: Placed, layer: Layer, seed: int, shared: dict[str, Tensor]
) -> TrainedSite:
    """A site with fresh tensors.

    Args:
        placed: where.
        layer: of the backbone.
        seed: of what is trained.
        shared: what sites before share, by name and device; this one adds its own.
    """
    weights: dict[str, nn.Parameter] = {}
    frozen: dict[str, Tensor] = {}
    site = TrainedSite(placed, layer, weights, frozen)
    _check_readable(site)
    for weight in placed.site.weights:
        name = placed.name(weight)
        kept = f"{name} on {site.device}"
        tensor = shared.get(kept)
        if tensor is None:
            tensor = _drawn(weight, f"{seed}:" if weight.trained else "", site)
            tensor = nn.Parameter(tensor) if weight.trained else tensor
        if weight.shared:
            shared[kept] = tensor
        if isinstance(tensor, nn.Parameter):
            weights[weight.name] = tensor
        else:
            frozen[weight.name] = tensor
    return site


def _check_one(sites: Sequence[TrainedSite]) -> None:
    """Refuses trained tensors that sites on several devices share."""
    by_name: dict[str, Tensor] = {}
    for site in sites:
        for weight in site.placed.site.weights:
            if weight.trained:
                tensor = site.weights[weight.name]
                if by_name.setdefault(site.placed.name(weight), tensor) is not tensor:
                    reason = "shares tensors between layers, which are on several devices"
                    raise AttachError(reason, describe(site.placed.placement))


def _check_readable(site: TrainedSite) -> None:
    """Refuses a method that reads weights of a quantized module, or restores those of another."""
    method, where = site.placed.method, describe(site.placed.placement)
    is_quantized = not site.base_weight().is_floating_point()
    if method.reads_weights and is_quantized:
        raise AttachError("needs the weights themselves, which are quantized", where)
    if method.restores and not is_quantized:
        raise AttachError("starts from what quantization took, and the weights are whole", where)


def _drawn(weight: Weight, seed: str, site: TrainedSite) -> Tensor:
    """The float32 tensor of a weight on the device of its site.

    Those that are made from the base weight have random numbers in common.
    """
    if site.device.type == "meta":
        return torch.empty(weight.shape, dtype=weight.dtype, device=site.device)
    if callable(weight.draw):
        generator = _generator(f"{seed}{site.placed.key}")
        base = lost_weight(site) if site.placed.method.restores else site.base_weight()
        return weight.draw(base.float(), generator).contiguous()
    return _draw(weight, _generator(f"{seed}{site.placed.name(weight)}")).to(site.device)


def lost_weight(site: TrainedSite) -> Tensor:
    """What quantization took of the weight of a site, (outputs of the role, inputs).

    Raises:
        AttachError: nobody knows.
    """
    lost = getattr(site.module, LOST, None)
    if lost is None:
        reason = "starts from what quantization took, which only a backbone of autopeft tells"
        raise AttachError(reason, describe(site.placed.placement))
    return lost() if site.columns is None else lost()[site.columns]


def _generator(name: str) -> torch.Generator:
    """Of random numbers on the CPU; the same name gives the same everywhere."""
    digest = hashlib.sha256(name.encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def _draw(weight: Weight, generator: torch.Generator) -> Tensor:
    tensor = torch.zeros(weight.shape, dtype=weight.dtype)
    if weight.draw == "constant":
        tensor.fill_(weight.scale)
    elif weight.draw == "uniform":
        tensor.uniform_(-weight.scale, weight.scale, generator=generator)
    elif weight.draw == "normal":
        tensor.normal_(0.0, weight.scale, generator=generator)
    return tensor
