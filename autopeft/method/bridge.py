"""Any type of the installed HF peft that sits at a linear, by its own layer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import lru_cache, partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.func import functional_call

from autopeft.core.config import Placement
from autopeft.core.errors import AttachError, unknown
from autopeft.core.methods import Peft
from autopeft.core.shape import Linear
from autopeft.method.lora import BesideLinears
from autopeft.method.method import (
    BIAS,
    INPUT,
    RAW,
    WEIGHT,
    Base,
    Change,
    Fold,
    Site,
    Weight,
    Weights,
)

_LINEAR, _ADAPTER = "linear", "default"
"""The path of the linear that is wrapped, and HF peft's name of what is on it."""

_TAKEN = (
    *("target_modules", "peft_type", "task_type", "inference_mode", "modules_to_save"),
    "save_only_topk_weights",
)
"""Options of HF peft that autopeft gives itself."""

_SHARED = {"pvera": ("pvera_A", "pvera_B"), "vblora": ("vblora_vector_bank",)}
"""By type the tensors that its layers have in common."""

_UNFIT = {
    "adalora": "moves its ranks by calls between the steps",
    "adamss": "has tensors whose shapes follow from the weights",
    "lily": "shares tensors between neighbouring layers",
    "osf": "changes gradients before each step",
    "poly": "reads the task of each row",
    "trainable_tokens": "sits at embeddings",
}
"""Types that need more of a training than their layers, or other layers."""

Settings = tuple[tuple[str, Any], ...]


class PeftMethod(BesideLinears[Peft]):
    """Adds to each target what a layer of HF peft returns more than the linear that it wraps.

    Where the layer runs the linear on what it is given, what came out of that is taken. Places that
    a type draws at random, where they are no tensors, are alike at all linears of a shape.

    Raises:
        AttachError: a type that HF peft has not, or not at a linear by itself; an option that the
            type has not or refuses.

    References:
        Mangrulkar et al., "PEFT: State-of-the-art Parameter-Efficient Fine-Tuning methods", 2022.
    """

    merges: ClassVar[bool] = True
    example: ClassVar[Mapping[str, Any]] = {
        "peft_type": "miss",
        "targets": ("q", "v", "down"),
        "r": 4,
    }

    @property
    def reads_weights(self) -> bool:
        return True

    @property
    def vectorizes(self) -> bool:
        return False

    def weights(self, linear: Linear) -> tuple[Weight, ...]:
        template = self._template(linear)
        kind, own = self.options.peft_type, self.options.own
        return tuple(
            Weight(
                name,
                tuple(tensor.shape),
                partial(_started, kind, own, name),
                trained=tensor.requires_grad,
                shared=_key(kind, tensor) if name in _SHARED.get(kind.lower(), ()) else "",
                dtype=tensor.dtype,
            )
            for name, tensor in template.tensors.items()
        )

    def changes(self, linear: Linear) -> Mapping[str, int]:
        counts = self._template(linear).changes
        return {f"{linear.role}.{n}": c for n, c in counts.items() if n == "weight" or linear.bias}

    def part(self, site: Site, weights: Weights) -> Change:
        outputs, inputs = site.shape
        layer = _template(self.options.peft_type, self.options.own, inputs, outputs).layer
        linear = layer.get_submodule("base_layer")
        assert isinstance(linear, _Known)

        def change(x: Tensor, raw: Tensor, weight: Tensor, bias: Tensor, training: bool) -> Tensor:
            wide = {name: _wide(tensor) for name, tensor in weights.items()}
            given = {_full(layer, name): tensor for name, tensor in wide.items()}
            given |= {"base_layer.weight": _wide(weight), "base_layer.bias": _wide(bias)}
            x, raw = _wide(x), _wide(raw)
            with linear.knowing(x, raw):
                changed: Tensor = functional_call(layer.train(training), given, (x,))
            return changed - raw

        return Change(site.at, change, (INPUT, RAW, WEIGHT, BIAS))

    def fold(self, site: Site, weights: Weights, base: Base) -> Fold:
        layer = _wrapped(self.options.peft_type, self.options.own, base.weight, base.bias)
        try:
            weight, bias = _merged(layer, weights)
        except NotImplementedError as error:
            raise AttachError(f"{self.options.peft_type} does not merge: {error}") from None
        if base.bias is None and bool(bias.any()):
            reason = f"{self.options.peft_type} changes a bias, which the linear has not"
            raise AttachError(reason, site.name)
        return Fold(weight, None if base.bias is None else bias)

    def _template(self, linear: Linear) -> _Template:
        kind, own = self.options.peft_type, self.options.own
        return _template(kind, own, linear.inputs, linear.outputs)


class _Known(nn.Linear):
    """A linear whose output is known of one input."""

    _known: tuple[Tensor, Tensor] | None = None

    @contextmanager
    def knowing(self, x: Tensor, output: Tensor) -> Iterator[None]:
        """Inside the block `output` is that of the very tensor `x`."""
        self._known = x, output
        try:
            yield
        finally:
            self._known = None

    def forward(self, x: Tensor) -> Tensor:
        if self._known is not None and x is self._known[0]:
            return self._known[1]
        return super().forward(x)


@dataclass(frozen=True)
class _Template:
    """A layer of HF peft for linears of one shape.

    Attributes:
        layer: without weights of its own.
        tensors: those that it has beside the linear's, by name; trained ones require gradients.
        changes: elements that merging changes, by tensor of the linear.
    """

    layer: nn.Module
    tensors: Mapping[str, Tensor]
    changes: Mapping[str, int]


@lru_cache(maxsize=256)
def _template(kind: str, own: Settings, inputs: int, outputs: int) -> _Template:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(outputs, inputs, generator=generator)
    layer = _wrapped(kind, own, weight, torch.randn(outputs, generator=generator))
    tensors = dict(_tensors(layer))
    stirred = {
        name: t.detach() + 0.1 * torch.randn(t.shape, generator=generator)
        for name, t in tensors.items()
        if t.requires_grad
    }
    try:
        differences = dict(zip(("weight", "bias"), _merged(layer, stirred), strict=True))
    except NotImplementedError:
        differences = {}
    changes = {name: int((change != 0).sum()) for name, change in differences.items()}
    bare = {name: torch.empty_like(t, device="meta") for name, t in tensors.items()}
    shapes = {n: t.requires_grad_(tensors[n].requires_grad) for n, t in bare.items()}
    layer = _wrapped(kind, own, weight, weight.new_zeros(outputs))
    layer.base_layer = _Known(inputs, outputs, device="meta")
    return _Template(layer, shapes, {name: n for name, n in changes.items() if n})


def _wrapped(
    kind: str, own: Settings, weight: Tensor, bias: Tensor | None, seed: int = 0
) -> nn.Module:
    """The layer around a linear with these weights, as it starts."""
    from peft import inject_adapter_in_model
    from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING

    config = configured(kind, own, [_LINEAR])
    holder, (outputs, inputs) = nn.Module(), weight.shape
    with _seeded(seed):
        linear = nn.Linear(inputs, outputs, device=weight.device)
        linear.weight.data.copy_(weight)
        linear.bias.data.copy_(weight.new_zeros(outputs) if bias is None else bias)
        holder.add_module(_LINEAR, linear)
        try:
            if kind.lower() in _SHARED:
                PEFT_TYPE_TO_TUNER_MAPPING[config.peft_type](holder, config, _ADAPTER)
            else:
                inject_adapter_in_model(config, holder, _ADAPTER)
        except Exception as error:  # whatever HF peft says to a combination of options
            reason = " ".join(str(error).split())
            raise AttachError(
                f"HF peft does not put {kind} at a linear: {reason}", "peft"
            ) from None
    return holder.get_submodule(_LINEAR)


def _key(kind: str, tensor: Tensor) -> str:
    """Of a tensor that all linears share to which it fits."""
    return f"{kind} {'x'.join(map(str, tensor.shape))}"


def own_of(placement: Placement) -> Settings:
    """The options that a type itself has."""
    return tuple(pair for pair in placement.built if pair[0] not in Peft.options())


def check_options(kind: str, names: Iterable[str]) -> None:
    """Raises AttachError for a type that HF peft has not, or a name that is no option of it."""
    made = _made(kind)
    known = [f.name for f in fields(made) if f.name not in _TAKEN]
    for name in names:
        if name not in known:
            raise AttachError(unknown(f"option of {kind}", name, known), "peft")


def configured(kind: str, own: Settings, targets: list[str] | str, **about: Any) -> Any:
    """The configuration of HF peft for modules."""
    check_options(kind, dict(own))
    given = {name: list(v) if isinstance(v, tuple) else v for name, v in own}
    try:
        return _made(kind)(target_modules=targets, **given, **about)
    except (TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise AttachError(f"HF peft refuses the options of {kind}: {reason}", "peft") from None


def _made(kind: str) -> Any:
    """The class of the configurations of a type."""
    from peft import PeftType
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    types = {str(each.value).lower(): each for each in PeftType}
    if kind.lower() not in types:
        raise AttachError(unknown("type", kind, sorted(types)), "peft.peft_type")
    if kind.lower() in _UNFIT:
        raise AttachError(
            f"{kind} {_UNFIT[kind.lower()]}, which autopeft does not", "peft.peft_type"
        )
    return PEFT_TYPE_TO_CONFIG_MAPPING[types[kind.lower()]]


def _tensors(layer: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers beside those of the linear, without the name of the adapter."""
    for tensors in (layer.named_parameters(), layer.named_buffers()):
        for name, tensor in tensors:
            if not name.startswith("base_layer."):
                yield _short(name), tensor


def _short(name: str) -> str:
    return ".".join(part for part in name.split(".") if part != _ADAPTER)


def _full(layer: nn.Module, name: str) -> str:
    """HF peft's name of a tensor."""
    return _names(layer)[name]


@lru_cache(maxsize=256)
def _names(layer: nn.Module) -> dict[str, str]:
    full = [name for name, _ in (*layer.named_parameters(), *layer.named_buffers())]
    return {_short(name): name for name in full}


def _started(
    kind: str, own: Settings, name: str, weight: Tensor, generator: torch.Generator
) -> Tensor:
    """A tensor as the layer starts with it."""
    layer = _wrapped(kind, own, weight, None, seed=generator.initial_seed())
    return dict(_tensors(layer))[name].detach()


@torch.no_grad()
def _merged(layer: nn.Module, weights: Weights) -> tuple[Tensor, Tensor]:
    """How merging changes weight and bias of the linear."""
    linear = layer.get_submodule("base_layer")
    before = [linear.get_parameter(name).clone() for name in ("weight", "bias")]
    for name, tensor in _tensors(layer):
        if name in weights:
            tensor.copy_(weights[name])
    layer.eval().merge(adapter_names=[_ADAPTER])  # type: ignore[operator]
    linear = layer.get_submodule("base_layer")
    return linear.get_parameter("weight") - before[0], linear.get_parameter("bias") - before[1]


def _wide(tensor: Tensor) -> Tensor:
    """In float32 what is narrower, which not every layer computes in."""
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
