"""AdapterHub's library from here: where it has our tensors, and what its folders mean."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from autopeft.core.config import PeftConfig, Placement
from autopeft.exporter.adapterhub_names import NAME, NAMES, Names, base_of
from autopeft.method.attach import Attached, attach
from autopeft.method.hook import TrainedSite
from autopeft.method.sites import shape_of

Read = Callable[[Tensor], Tensor]
"""A tensor of ours from the values of one of theirs."""
Reads = Iterator[tuple[str, str, Read]]
"""The name of a tensor at a site, the key of theirs, and how it is read."""


def places(on: Attached) -> Iterator[tuple[Tensor, str, Read]]:
    """Every tensor of ours, the key of theirs, and how ours is read from it."""
    for site in on.sites:
        method = site.placed.placement.method
        for name, key, read in _OF[method](site, on):
            yield site.tensors[name], key, read
        for name in ("weight", "bias") if site.is_gated else ():
            yield site.tensors[f"gate.{name}"], f"{_GATES[method](site, on)}.{name}", _same


@torch.no_grad()
def fill(on: Attached, theirs: Mapping[str, Tensor]) -> None:
    """Gives all our tensors their values of theirs, none of which is left over."""
    keys = set()
    for tensor, key, of in places(on):
        tensor.copy_(of(theirs[key]))
        keys.add(key)
    assert keys == theirs.keys()


def _same(tensor: Tensor) -> Tensor:
    return tensor


def _transposed(tensor: Tensor) -> Tensor:
    return tensor.transpose(-1, -2)


def _linear(site: TrainedSite) -> tuple[str, Read]:
    """What the keys at a linear begin with, and its part of a tensor; fused ones are whole."""
    linear, targets = site.layer.linears[site.placed.site.at], site.placed.method.options.targets
    stem, role = f"{linear.path}.loras.{NAME}", linear.shape.role.rpartition(".")[2]
    if linear.columns is None:
        return stem, _same
    fused = [each for each in "qkv" if each in targets]
    return stem, lambda tensor: tensor.chunk(len(fused))[fused.index(role)]


def _lora(site: TrainedSite, on: Attached) -> Reads:
    stem, part = _linear(site)
    yield "A", f"{stem}.lora_A", part
    yield "B", f"{stem}.lora_B", part


def _dora(site: TrainedSite, on: Attached) -> Reads:
    yield from _lora(site, on)
    lengths = site.base_weight().norm(dim=1)
    yield "m_change", f"{_linear(site)[0]}.m.weight", lambda m: m[:, 0] / lengths - 1


def _ia3(site: TrainedSite, on: Attached) -> Reads:
    """Factors of what enters `down` are those of what leaves `up`, where they commute."""
    stem, part = _linear(site)
    if site.placed.site.at in site.placed.method.options.feedforward_modules:
        stem = f"{site.layer.linears['up'].path}.loras.{NAME}"
    yield "change", f"{stem}.lora_B", lambda factor: part(factor)[:, 0] - 1


def _vera(site: TrainedSite, on: Attached) -> Reads:
    stem, _ = _linear(site)
    for name in ("d", "b"):
        yield name, f"{stem}.vera_{name.upper()}", lambda matrix: matrix.diagonal()
    for name in ("A", "B"):
        yield name, f"{base_of(on.model)}shared_parameters.{NAME}.lora_{name}", _same


def _bottleneck(site: TrainedSite, on: Attached) -> str:
    """What the keys of an adapter begin with."""
    names = NAMES[on.model.config.model_type]
    return f"{names.bottleneck(site.layer, site.placed.site.name)}.{NAME}"


def _adapter(site: TrainedSite, on: Attached) -> Reads:
    stem = _bottleneck(site, on)
    for tensor in ("weight", "bias"):
        yield f"down.{tensor}", f"{stem}.adapter_down.0.{tensor}", _same
        yield f"up.{tensor}", f"{stem}.adapter_up.{tensor}", _same


def _compacter(site: TrainedSite, on: Attached) -> Reads:
    """Theirs are transposed: rows are inputs there."""
    yield "A", f"{base_of(on.model)}shared_parameters.{NAME}.phm_rule", _transposed
    for name, theirs in (("down", "adapter_down.0"), ("up", "adapter_up")):
        stem = f"{_bottleneck(site, on)}.{theirs}"
        yield f"{name}.t", f"{stem}.W_left", _transposed
        yield f"{name}.s", f"{stem}.W_right", _transposed
        if site.placed.method.options.bias:
            yield f"{name}.bias", f"{stem}.b", _same


def _prefix(site: TrainedSite, on: Attached) -> Reads:
    """One tensor has keys and values of all attentions of a kind, layer by layer."""
    names = NAMES[on.model.config.model_type]

    def kind(each: TrainedSite) -> str:
        is_prefix = each.placed.placement.method == "prefix"
        return names.prefixes(each.layer, each.placed.site.name) if is_prefix else ""

    alike = [each for each in on.sites if kind(each) == kind(site)]
    base = f"{base_of(on.model)}prefix_tuning.prefix_tunings.{NAME}.{kind(site)}"
    n, length, stem = 2 * len(alike), site.placed.method.options.length, f"{base}.control_trans"
    projected = "embedding" in site.weights
    if projected:
        yield "embedding", f"{base}.wte.weight", _same
    for tensor in ("weight", "bias") if projected else ():
        yield f"inner.{tensor}", f"{stem}.0.{tensor}", _same
    for turn, name in enumerate(("key", "value"), 2 * alike.index(site)):
        if projected:
            for tensor in ("weight", "bias"):
                yield f"{name}.{tensor}", f"{stem}.2.{tensor}", lambda t, i=turn: t.chunk(n)[i]
        else:
            yield name, stem, lambda t, i=turn: t.view(length, n, -1)[:, i]


_OF: Mapping[str, Callable[[TrainedSite, Attached], Reads]] = {
    "adapter": _adapter,
    "compacter": _compacter,
    "dora": _dora,
    "ia3": _ia3,
    "lora": _lora,
    "prefix": _prefix,
    "vera": _vera,
}


_GATES: Mapping[str, Callable[[TrainedSite, Attached], str]] = {
    "adapter": lambda site, on: f"{_bottleneck(site, on)}.gate",
    "lora": lambda site, on: f"{_linear(site)[0]}.gate",
    "prefix": lambda site, on: (
        f"{site.layer.path}.attention.self.prefix_tuning.prefix_gates.{NAME}"
    ),
}


def read(folder: Path, model: PreTrainedModel) -> PreTrainedModel:
    """The model with what a folder says, as `load_adapter` understands it."""
    config = json.loads((folder / "adapter_config.json").read_text("utf-8"))["config"]
    union = config["configs"] if config.get("architecture") == "union" else [config]
    layers, names = range(len(shape_of(model).layers)), NAMES[model.config.model_type]
    placements = []
    for each in union:
        method, options = _meant(each, names, model.config.hidden_size)
        kept = {*layers} - {*each["leave_out"]}
        placements.append(Placement.of(method, kept, options))
    theirs = torch.load(folder / "pytorch_adapter.bin")
    fill(attach(model, PeftConfig.of(placements)), theirs)
    if (folder / "pytorch_model_head.bin").is_file():
        model.load_state_dict(torch.load(folder / "pytorch_model_head.bin"), strict=False)
    return model.eval()


def _meant(config: Mapping[str, Any], names: Names, width: int) -> tuple[str, dict[str, Any]]:
    """The method of a configuration and its options."""
    kind = config.get("architecture")
    if kind == "prefix_tuning":
        return "prefix", {"length": config["prefix_length"]}
    if kind == "lora":
        flags = zip(("intermediate_lora", "output_lora"), names.feed_forward, strict=True)
        targets = [*config["attn_matrices"], *(role for flag, role in flags if config[flag])]
        return "lora", {"targets": targets, "r": config["r"], "lora_alpha": config["alpha"]}
    sublayers = {(True, False): "attention", (False, True): "ffn", (True, True): "both"}
    options = {
        "at": sublayers[config["mh_adapter"], config["output_adapter"]],
        "size": int(width // config["reduction_factor"]),
        "form": "parallel" if config["is_parallel"] else "sequential",
        "activation": config["non_linearity"],
        "scale": config["scaling"],
    }
    if "phm_dim" not in config:
        return "adapter", options
    own = {name: config[name] for name in ("phm_dim", "phm_rank")}
    return "compacter", {**options, **own, "bias": config["phm_bias"]}
