"""What AdapterHub's library makes of the methods: a configuration with its tensors by name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from autopeft.core.config import Placement
from autopeft.exporter.adapterhub_names import NAME, NAMES, Names, base_of
from autopeft.exporter.low_rank import LowRank, differ, low_rank
from autopeft.method.attach import Attached
from autopeft.method.hook import TrainedSite
from autopeft.method.sites import Layer, LinearSite, layers_of

ADAPTERS = ("adapter", "compacter")
LOW_RANK = ("lora", "moslora")
LORA_SITES = ("q", "k", "v", "up", "down")
"""Where AdapterHub has LoRA."""


@dataclass(frozen=True)
class Part:
    """A configuration of AdapterHub with its tensors by name."""

    config: Mapping[str, Any]
    tensors: Mapping[str, Tensor]


def parts(attached: Attached) -> Iterator[Part]:
    """The configurations that together are what is attached."""
    layers, names = layers_of(attached.model), NAMES[attached.model.config.model_type]
    base, sites = base_of(attached.model), attached.sites
    for placement in attached.config.placements:
        if placement.method in ADAPTERS:
            own = [site for site in sites if site.placed.placement == placement]
            yield _adapters(placement, own, layers, names, base)
    changes = [site for site in sites if site.placed.placement.method in LOW_RANK]
    if changes:
        yield _lora(changes, layers, names)
    contexts = [site for site in sites if site.placed.placement.method == "prefix"]
    if contexts:
        yield _prefix(contexts, layers, names, base)


def _without(layers: Sequence[Layer], kept: Iterable[int]) -> list[int]:
    return sorted({*range(len(layers))} - {*kept})


def _adapters(
    placement: Placement,
    sites: Sequence[TrainedSite],
    layers: Sequence[Layer],
    names: Names,
    base: str,
) -> Part:
    options = sites[0].placed.method.options
    (width, _), at = sites[0].placed.site.shape, {site.placed.site.name for site in sites}
    config = {
        "mh_adapter": "self" in at,
        "cross_adapter": "cross" in at,
        "output_adapter": "ffn" in at,
        "reduction_factor": _factor(width, options.size),
        "non_linearity": options.activation,
        "is_parallel": options.form == "parallel",
        "scaling": options.scale,
        "leave_out": _without(layers, placement.layers),
        "phm_bias": options.bias,
    }
    is_product = placement.method == "compacter"
    if is_product:
        numbers = {"phm_dim": options.phm_dim, "phm_rank": options.phm_rank}
        config |= {"phm_layer": True, **numbers}
    tensors: dict[str, Tensor] = {}
    for site in sites:
        stem = f"{names.bottleneck(site.layer, site.placed.site.name)}.{NAME}"
        named = _products(site, base) if is_product else _matrices(site)
        tensors |= {key.format(stem=stem): tensor for key, tensor in named}
    return Part(config, tensors)


def _factor(width: int, size: int) -> float:
    """The divisor that leaves a size of a width, in whole numbers where there is one."""
    return width // size if width % size == 0 else width / (size + 0.5)


def _matrices(site: TrainedSite) -> Iterator[tuple[str, Tensor]]:
    """Those of an adapter; a bias that it lacks is zero."""
    for name, key in (("down", "{stem}.adapter_down.0"), ("up", "{stem}.adapter_up")):
        weight = site.weights[f"{name}.weight"].detach()
        yield f"{key}.weight", weight
        bias = site.weights.get(f"{name}.bias")
        yield f"{key}.bias", weight.new_zeros(len(weight)) if bias is None else bias.detach()


def _products(site: TrainedSite, base: str) -> Iterator[tuple[str, Tensor]]:
    """Those of Compacter, whose rows are inputs."""
    tensors = {name: weight.detach() for name, weight in site.weights.items()}
    yield f"{base}shared_parameters.{NAME}.phm_rule", tensors["A"].transpose(1, 2)
    for name, key in (("down", "{stem}.adapter_down.0"), ("up", "{stem}.adapter_up")):
        yield f"{key}.W_left", tensors[f"{name}.t"].transpose(1, 2)
        yield f"{key}.W_right", tensors[f"{name}.s"].transpose(1, 2)
        if f"{name}.bias" in tensors:
            yield f"{key}.b", tensors[f"{name}.bias"]


def _lora(sites: Sequence[TrainedSite], layers: Sequence[Layer], names: Names) -> Part:
    changes: dict[tuple[int, str], LowRank] = {}
    for site in sites:
        at, change = (site.placed.layer, site.placed.site.at), low_rank(site)
        changes[at] = changes[at].plus(change) if at in changes else change
    if differ(changes.values()):
        most = max(change.rank for change in changes.values())
        changes = {at: change.padded(most) for at, change in changes.items()}
    usual, kept = next(iter(changes.values())), {layer for layer, _ in changes}
    roles = {leaf(role) for _, role in changes}
    by_path: dict[str, list[LowRank]] = {}
    for layer in sorted(kept):
        for role, linear in layers[layer].linears.items():
            if leaf(role) in roles:
                change = changes.get((layer, role)) or _nothing(linear, usual)
                by_path.setdefault(linear.path, []).append(change)
    config = {
        "architecture": "lora",
        "selfattn_lora": bool(roles & {"q", "k", "v"}),
        "attn_matrices": [role for role in LORA_SITES[:3] if role in roles],
        "intermediate_lora": names.feed_forward[0] in roles,
        "output_lora": names.feed_forward[1] in roles,
        "leave_out": _without(layers, kept),
        "r": usual.rank,
        "alpha": usual.alpha,
        "dropout": max(site.placed.method.options.lora_dropout for site in sites),
    }
    tensors = {f"{p}.loras.{NAME}.lora_A": torch.cat([c.a for c in by_path[p]]) for p in by_path}
    tensors |= {f"{p}.loras.{NAME}.lora_B": torch.cat([c.b for c in by_path[p]]) for p in by_path}
    return Part(config, tensors)


def leaf(role: str) -> str:
    """`q` of `cross.q`."""
    return role.rpartition(".")[2]


def _nothing(linear: LinearSite, like: LowRank) -> LowRank:
    """No change, in the form of another."""
    a = like.a.new_zeros(like.rank, linear.shape.inputs)
    return LowRank(a, like.b.new_zeros(linear.shape.outputs, like.rank), like.scaling)


def _prefix(sites: Sequence[TrainedSite], layers: Sequence[Layer], names: Names, base: str) -> Part:
    """Keys and values of all layers of a stack in turn, (length, 2 layers, width), are one."""
    pairs: dict[tuple[str, int], list[Tensor]] = {}
    for site in sites:
        at = names.prefixes(site.layer, site.placed.site.name), site.placed.layer
        pairs.setdefault(at, []).append(torch.stack([site.weights["key"], site.weights["value"]]))
    stacks: dict[str, list[Tensor]] = {}
    for (stack, _), own in sorted(pairs.items(), key=lambda item: item[0]):
        stacks.setdefault(stack, []).append(torch.cat(own, dim=1))
    length = next(iter(stacks.values()))[0].shape[1]
    config = {
        "architecture": "prefix_tuning",
        "flat": True,
        "prefix_length": length,
        "leave_out": _without(layers, (layer for _, layer in pairs)),
    }
    stem = f"{base}prefix_tuning.prefix_tunings.{NAME}"
    tensors = {
        f"{stem}.{stack}.control_trans": torch.cat(own).transpose(0, 1).flatten().detach()
        for stack, own in stacks.items()
    }
    return Part(config, tensors)
