"""Finds layers, linears by role and norms in any architecture, by names, order and shapes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.pytorch_utils import Conv1D

from autopeft.core.errors import AttachError
from autopeft.core.shape import ROLES, LayerShape, Linear, Norm, Shape

LINEARS = (nn.Linear, Conv1D)  # quantized linears are subclasses of nn.Linear

LOST = "autopeft_lost"
"""The attribute of a quantized linear that says what its weight was more, (outputs, inputs)."""

_ATTENTION = re.compile(r"att(entio)?n", re.IGNORECASE)
_CROSS = re.compile(r"cross|encoder_attn|EncDec", re.IGNORECASE)
_PROJECTION = re.compile(
    r"(?P<q>q|query|q_proj|query_proj|q_lin|q_attn)"
    r"|(?P<k>k|key|k_proj|key_proj|k_lin)"
    r"|(?P<v>v|value|v_proj|value_proj|v_lin)"
    r"|(?P<fused>c_attn|qkv_proj|qkv|Wqkv)|(?P<by_head>query_key_value|in_proj)"
)
_FEED_FORWARD = re.compile(
    r"(?P<fused>gate_up\w*|Wi)|(?P<gate>gate\w*|wi_0|w1)|(?P<up>up_proj|wi_1|w3)"
    r"|(?P<down>wo|Wo|down_proj|fc2|lin2|w2)"
)
# Linears without a role: of position embeddings, mixtures of experts, state spaces, each layer.
_ELSEWHERE = re.compile(
    r"(^|\.)(pos_\w+|\w*experts?\w*|router\w*|mamba\w*|linear_attn|per_layer\w*)(\.|$)"
)
# Linears of attentions that are not its output.
_BESIDE = re.compile(r"g_proj|\w*gate\w*|sink_proj|relative_pos_embeddings")
# What an attention has that keeps a state instead of attending: its linears have no role.
_RECURRENT = re.compile(r"(^|\.)forget_gate(\.|$)")
# Norms outside the layers that belong to a head.
_OUTSIDE = re.compile(r"(^|\.)(pooler|\w*head|classifier|predictions)(\.|$)")
_STACK = re.compile(r"(^|\.)(encoder|decoder)\.")


Columns = slice | Tensor
"""Some outputs of a linear: consecutive ones, or those of a (outputs of the role,) index."""


@dataclass(frozen=True)
class LinearSite:
    """A linear as a role sees it.

    Attributes:
        path: of the module inside the model.
        columns: the outputs of the module that belong to the role; None for all of them.
    """

    shape: Linear
    path: str
    module: nn.Module
    columns: Columns | None


@dataclass(frozen=True)
class Layer:
    """One transformer layer: where its parts are.

    Attributes:
        linears: by role, in the order of `ROLES`.
        norms: by path inside the model.
        attentions: the modules that compute attention, by `self` and `cross`.
    """

    path: str
    stack: str
    linears: Mapping[str, LinearSite]
    norms: Mapping[str, nn.Module]
    attentions: Mapping[str, nn.Module]

    def module(self, at: str) -> nn.Module:
        """The linear of a role or the norm of a path."""
        return self.linears[at].module if at in self.linears else self.norms[at]

    def columns(self, at: str) -> Columns | None:
        """The outputs of `module(at)` that belong to the role `at`; None for all of them."""
        return self.linears[at].columns if at in self.linears else None


def shape_of(model: PreTrainedModel) -> Shape:
    """The backbone as numbers; quantized weights count by their logical size.

    Works on meta tensors and on bitsandbytes' quantized linears.

    Raises:
        AttachError: no transformer layers are found.
    """
    return Shape(tuple(_layer_shape(layer) for layer in layers_of(model)), parameters_of(model))


def parameters_of(model: PreTrainedModel) -> int:
    """Elements of the pretrained backbone without the task head, shared tensors counted once."""
    logical = {
        id(module.weight): module.in_features * module.out_features
        for module in model.base_model.modules()
        if isinstance(module, nn.Linear)
    }
    return sum(logical.get(id(p), p.numel()) for p in model.base_model.parameters())


def layers_of(model: PreTrainedModel) -> tuple[Layer, ...]:
    """The transformer layers in order, the encoder's before the decoder's.

    Raises:
        AttachError: none are found.
    """
    candidates = _candidates(model)
    paths = [
        path for path in candidates if not any(other.startswith(f"{path}.") for other in candidates)
    ]
    if not paths:
        reason = "has no transformer layers that can be found"
        raise AttachError(f"{type(model).__name__} {reason}")
    both = {_stack(path) for path in paths} >= {"encoder", "decoder"}
    stacks = {path: _stack(path) if both else "" for path in paths}
    paths.sort(key=lambda path: stacks[path] == "decoder")
    edges = _edge_norms(model, paths, stacks)
    heads = getattr(model.config.get_text_config(), "num_attention_heads", 0)
    return tuple(_layer(path, candidates[path], stacks[path], edges, heads) for path in paths)


def _candidates(model: PreTrainedModel) -> dict[str, nn.Module]:
    """Modules that may be layers, by path: those that can be checkpointed, else items of lists."""
    modules = dict(model.named_modules())
    marked = {n: m for n, m in modules.items() if isinstance(m, GradientCheckpointingLayer)}
    return marked or {
        path: modules[path]
        for name, items in modules.items()
        if isinstance(items, nn.ModuleList)
        for path in (f"{name}.{index}" for index in range(len(items)))
        if any(_ATTENTION.search(inner) for inner, _ in modules[path].named_modules())
    }


def _stack(path: str) -> str:
    match = _STACK.search(path)
    return match.group(2) if match else ""


def _layer(
    path: str, module: nn.Module, stack: str, edges: Mapping[str, _Edge], heads: int
) -> Layer:
    linears = {site.shape.role: site for site in _linears(path, module, heads)}
    attentions = {
        kind: module.get_submodule(linears[f"{kind}.k"].path[len(path) + 1 :].rpartition(".")[0])
        for kind in ("self", "cross")
        if f"{kind}.k" in linears
    }
    norms = {f"{path}.{name}": norm for name, norm in module.named_modules() if _is_norm(norm)}
    first = {name: edge.module for name, edge in edges.items() if edge.before == path}
    last = {name: edge.module for name, edge in edges.items() if edge.after == path}
    ordered = {role: linears[role] for role in ROLES if role in linears}
    return Layer(path, stack, ordered, first | norms | last, attentions)


def _linears(path: str, layer: nn.Module, heads: int) -> Iterator[LinearSite]:
    groups: dict[str, dict[str, nn.Module]] = {"self": {}, "cross": {}, "ffn": {}}
    for name, module in layer.named_modules():
        if isinstance(module, LINEARS) and not _ELSEWHERE.search(name):
            attention = "cross" if _CROSS.search(name) else "self"
            groups[attention if _ATTENTION.search(name) else "ffn"][name] = module
    for group, modules in groups.items():
        named = _feed_forward(modules) if group == "ffn" else _attention(modules, heads)
        for role, (name, columns) in named.items():
            role = role if group == "ffn" else f"{group}.{role}"
            yield _site(role, f"{path}.{name}", modules[name], columns)


def _attention(
    modules: Mapping[str, nn.Module], heads: int
) -> dict[str, tuple[str, Columns | None]]:
    """The modules of one attention by role; a fused one is cut into its parts.

    The query is as wide as the input of the output linear; keys and values share the rest.
    """
    names: dict[str, str] = {}
    for name in modules:
        leaf = name.rsplit(".", 1)[-1]
        match = _PROJECTION.fullmatch(leaf)
        if match or not _BESIDE.fullmatch(leaf):
            names[str(match.lastgroup) if match else "o"] = name
    if "o" not in names or any(map(_RECURRENT.search, modules)):
        return {}
    roles: dict[str, tuple[str, Columns | None]] = {
        role: (name, None) for role, name in names.items() if role in ("q", "k", "v", "o")
    }
    for kind in {"fused", "by_head"} & names.keys():
        query = 0 if "q" in names else features(modules[names["o"]])[0]
        outputs = features(modules[names[kind]])[1]
        cut = _by_head(query, outputs, heads) if kind == "by_head" else _thirds(query, outputs)
        roles |= {role: (names[kind], columns) for role, columns in cut.items()}
    return roles if {"k", "v"} <= roles.keys() else {}


def _thirds(query: int, outputs: int) -> dict[str, Columns]:
    """Columns of a fused projection that holds all queries, then all keys, then all values."""
    key = query + (outputs - query) // 2
    cut: dict[str, Columns] = {"k": slice(query, key), "v": slice(key, outputs)}
    return {"q": slice(0, query), **cut} if query else cut


def _by_head(query: int, outputs: int, heads: int) -> dict[str, Columns]:
    """Columns of a fused projection that holds, per key head, its queries, its key, its value."""
    width = query // heads
    groups = (outputs // width - heads) // 2
    index = torch.arange(outputs, device="cpu").view(groups, heads // groups + 2, width)
    cut = {"q": index[:, :-2], "k": index[:, -2], "v": index[:, -1]}
    return {role: columns.flatten() for role, columns in cut.items()}


def _feed_forward(modules: Mapping[str, nn.Module]) -> dict[str, tuple[str, Columns | None]]:
    """The modules of a feed-forward network by role; a fused gate and up is cut in two.

    Those whose names do not tell are what no name has told, the first of them `up`.
    """
    roles: dict[str, tuple[str, Columns | None]] = {}
    unnamed: list[str] = []
    for name, module in modules.items():
        match = _FEED_FORWARD.fullmatch(name.rsplit(".", 1)[-1])
        if match is None:
            unnamed.append(name)
        elif match.lastgroup == "fused":
            outputs = features(module)[1]
            roles["gate"] = (name, slice(0, outputs // 2))
            roles["up"] = (name, slice(outputs // 2, outputs))
        else:
            roles[str(match.lastgroup)] = (name, None)
    open_roles = [role for role in ("up", "down") if role not in roles]
    roles |= {role: (name, None) for role, name in zip(open_roles, unnamed, strict=False)}
    if "gate" in roles and "up" not in roles:
        roles["up"] = roles.pop("gate")
    return roles


def _site(role: str, path: str, module: nn.Module, columns: Columns | None) -> LinearSite:
    inputs, outputs = features(module)
    if isinstance(columns, slice):
        outputs = columns.stop - columns.start
    elif columns is not None:
        outputs = len(columns)
    shape = Linear(role, inputs, outputs, getattr(module, "bias", None) is not None)
    return LinearSite(shape, path, module, columns)


def features(module: nn.Module) -> tuple[int, int]:
    """Logical inputs and outputs of a linear."""
    if isinstance(module, Conv1D):
        return int(module.nx), int(module.nf)
    assert isinstance(module, nn.Linear)
    return module.in_features, module.out_features


def _is_norm(module: nn.Module) -> bool:
    weight = getattr(module, "weight", None)
    named = type(module).__name__.lower().endswith("norm")
    return named and isinstance(weight, nn.Parameter) and weight.dim() == 1


@dataclass(frozen=True)
class _Edge:
    """A norm outside the layers; it stands `before` or `after` the layer of that path."""

    module: nn.Module
    before: str = ""
    after: str = ""


def _edge_norms(
    model: PreTrainedModel, paths: list[str], stacks: Mapping[str, str]
) -> dict[str, _Edge]:
    """Norms of the embeddings and final norms, by path; those of heads are left out."""
    order = {name: i for i, (name, _) in enumerate(model.named_modules())}
    base = {id(module) for module in model.base_model.modules()}
    edges: dict[str, _Edge] = {}
    for name, module in model.named_modules():
        inside = any(name.startswith(f"{path}.") for path in paths)
        if inside or not _is_norm(module) or id(module) not in base or _OUTSIDE.search(name):
            continue
        stack = [path for path in paths if stacks[path] == _stack(name)] or paths
        early = "emb" in name or ("final" not in name and order[name] < order[stack[0]])
        edges[name] = _Edge(module, before=stack[0]) if early else _Edge(module, after=stack[-1])
    return edges


def _layer_shape(layer: Layer) -> LayerShape:
    linears = tuple(site.shape for site in layer.linears.values())
    norms = tuple(
        Norm(name, norm.get_parameter("weight").numel(), getattr(norm, "bias", None) is not None)
        for name, norm in layer.norms.items()
    )
    return LayerShape(layer.stack, linears[0].inputs if linears else 0, linears, norms)
