"""Where the tensors of autopeft are among those of AdapterHub's library."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from torch import Tensor

from autopeft.method import Attached
from autopeft.method.hook import TrainedSite

NAME = "golden"
Read = Callable[[Tensor], Tensor]
"""A tensor of ours from the values of one of theirs."""
Reads = Iterator[tuple[str, str, Read]]
"""The name of a tensor at a site, the key of theirs, and how it is read."""

_OWN = {"self": "attention_adapters", "cross": "cross_attention_adapters", "ffn": "output_adapters"}
_BERT = {"self": "attention.output", "ffn": "output"}


def places(on: Attached) -> Iterator[tuple[Tensor, str, Read]]:
    """Every tensor of ours, the key of theirs, and how ours is read from it."""
    for site in on.sites:
        for name, key, read in _OF[site.placed.placement.method](site, on):
            yield site.tensors[name], key, read


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
        yield name, f"shared_parameters.{NAME}.lora_{name}", _same


def _bottleneck(site: TrainedSite) -> str:
    """What the keys of an adapter begin with."""
    layer, name = site.layer, site.placed.site.name
    if layer.path.startswith(("encoder.block", "decoder.block")):
        sublayers = {"self": 0, "cross": 1, "ffn": 1 + (layer.stack == "decoder")}
        return f"{layer.path}.layer.{sublayers[name]}.adapters.{NAME}"
    names = _BERT if layer.path.startswith("encoder.layer.") else _OWN
    return f"{layer.path}.{names[name]}.adapters.{NAME}"


def _adapter(site: TrainedSite, on: Attached) -> Reads:
    for tensor in ("weight", "bias"):
        yield f"down.{tensor}", f"{_bottleneck(site)}.adapter_down.0.{tensor}", _same
        yield f"up.{tensor}", f"{_bottleneck(site)}.adapter_up.{tensor}", _same


def _compacter(site: TrainedSite, on: Attached) -> Reads:
    """Theirs are transposed: rows are inputs there."""
    yield "A", f"shared_parameters.{NAME}.phm_rule", _transposed
    for name, theirs in (("down", "adapter_down.0"), ("up", "adapter_up")):
        stem = f"{_bottleneck(site)}.{theirs}"
        yield f"{name}.t", f"{stem}.W_left", _transposed
        yield f"{name}.s", f"{stem}.W_right", _transposed
        yield f"{name}.bias", f"{stem}.b", _same


def _prefix(site: TrainedSite, on: Attached) -> Reads:
    """One tensor has keys and values of all attentions of a kind, layer by layer."""
    alike = [each for each in on.sites if _kind(each) == _kind(site)]
    stem = f"prefix_tuning.prefix_tunings.{NAME}.{_kind(site)}_prefix.control_trans"
    n, length = 2 * len(alike), site.placed.method.options.length
    projected = "embedding" in site.weights
    if projected:
        yield "embedding", f"{stem.removesuffix('control_trans')}wte.weight", _same
    for tensor in ("weight", "bias") if projected else ():
        yield f"inner.{tensor}", f"{stem}.0.{tensor}", _same
    for turn, name in enumerate(("key", "value"), 2 * alike.index(site)):
        if projected:
            for tensor in ("weight", "bias"):
                yield f"{name}.{tensor}", f"{stem}.2.{tensor}", lambda t, i=turn: t.chunk(n)[i]
        else:
            yield name, stem, lambda t, i=turn: t.view(length, n, -1)[:, i]


def _kind(site: TrainedSite) -> str:
    """Theirs of an attention with a prefix; empty elsewhere."""
    if site.placed.placement.method != "prefix":
        return ""
    name = site.placed.site.name
    return "encoder" if (site.layer.stack, name) == ("encoder", "self") else name


_OF: Mapping[str, Callable[[TrainedSite, Attached], Reads]] = {
    "adapter": _adapter,
    "compacter": _compacter,
    "dora": _dora,
    "ia3": _ia3,
    "lora": _lora,
    "prefix": _prefix,
    "vera": _vera,
}
