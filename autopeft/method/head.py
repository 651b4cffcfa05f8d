"""Modules, such as the task head, that are trained as a whole on float32 copies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from transformers import PreTrainedModel

from autopeft.core.errors import AttachError
from autopeft.method.hook import widened
from autopeft.method.rows import Pieces, Rows, by_size

ORIGINALS = "autopeft_attached"
"""Attribute of a model that carries a pack: its own parameters of `modules_to_save` by name."""


@dataclass(frozen=True)
class Saved:
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


def originals(model: PreTrainedModel, paths: Sequence[str]) -> dict[str, nn.Parameter]:
    """The model's own parameters below `paths` by name, also while a member's stand in for them.

    Raises:
        AttachError: a path without a module, or a module without parameters or with quantized ones.
    """
    carried: Mapping[str, nn.Parameter] = getattr(model, ORIGINALS, {})
    modules = dict(model.named_modules())
    by_name: dict[str, nn.Parameter] = {}
    for path in paths:
        if path not in modules:
            raise AttachError(f"{type(model).__name__} has no module {path!r}", "modules_to_save")
        parameters = dict(modules[path].named_parameters(prefix=path))
        if not parameters or not all(p.is_floating_point() for p in parameters.values()):
            reason = f"module {path!r} has no parameters or quantized ones"
            raise AttachError(reason, "modules_to_save")
        by_name |= {name: carried.get(name, parameter) for name, parameter in parameters.items()}
    return by_name


def copies(model: PreTrainedModel, paths: Sequence[str]) -> dict[str, Saved]:
    """The parameters below `paths` with fresh copies, by name in the state."""
    saved: dict[str, Saved] = {}
    for name, original in originals(model, paths).items():
        owner, _, leaf = name.rpartition(".")
        copy = nn.Parameter(original.detach().to(torch.float32, copy=True).contiguous())
        saved[f"head.{name}"] = Saved(model.get_submodule(owner), leaf, original, copy)
    return saved


def install(
    model: PreTrainedModel,
    paths: Sequence[str],
    members: Sequence[Mapping[str, Saved]],
    rows: Rows,
    undo: ExitStack,
) -> None:
    """Lets the modules at `paths` run with the copies of the members until `undo` closes."""
    for path in paths:
        module = model.get_submodule(path)
        _in_float32(module, undo)
        if len(members) > 1:
            start = f"head.{path}."
            copies = [
                {name[len(start) :]: s.copy for name, s in saved.items() if name.startswith(start)}
                for saved in members
            ]
            module.forward = _Shared(module, copies, rows)
            undo.callback(module.__dict__.pop, "forward")
    for saved in members if len(members) == 1 else ():
        for each in saved.values():
            undo.callback(each.use, each.original)
            each.use(each.copy)


class _Shared:
    """The forward of a module of which every member has its own parameters.

    Args:
        module: takes tensors and returns one, rows first.
        members: parameters by name inside the module.
        rows: of the members.
    """

    def __init__(
        self, module: nn.Module, members: Sequence[Mapping[str, nn.Parameter]], rows: Rows
    ) -> None:
        self._module, self._forward = module, module.forward
        self._members, self._rows = members, rows
        self._inside = False

    def __call__(self, *inputs: Tensor) -> Tensor:
        if self._inside:
            output: Tensor = self._forward(*inputs)
            return output
        self._inside = True
        try:
            sole = self._rows.sole
            return self._packed(inputs) if sole is None else self._run(self._members[sole], inputs)
        finally:
            self._inside = False

    def _run(self, parameters: Mapping[str, Tensor], inputs: tuple[Tensor, ...]) -> Tensor:
        output: Tensor = functional_call(self._module, dict(parameters), inputs)
        return output

    def _packed(self, inputs: tuple[Tensor, ...]) -> Tensor:
        cut = self._rows.slices(len(inputs[0]))
        pieces = [Pieces(x, cut) for x in inputs]
        outputs: dict[int, Tensor] = {}
        for members in by_size(cut, cut):
            parts = tuple(piece.of(members) for piece in pieces)
            outputs |= zip(members, self._together(members, parts), strict=True)
        return torch.cat([outputs[member] for member in cut])

    def _together(self, members: Sequence[int], inputs: tuple[Tensor, ...]) -> Iterable[Tensor]:
        """The outputs of members with equally many rows, given (members, rows, ...)."""
        if len(members) == 1:
            return [self._run(self._members[members[0]], tuple(x[0] for x in inputs))]
        parameters = {
            name: torch.stack([self._members[member][name] for member in members])
            for name in self._members[members[0]]
        }
        return torch.vmap(self._run, randomness="different")(parameters, inputs).unbind()


def _in_float32(module: nn.Module, undo: ExitStack) -> None:
    """Lets `module`, whose parameters are float32, take inputs of any floating dtype."""

    def widen(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(
            widened(x) if isinstance(x, Tensor) and x.is_floating_point() else x for x in inputs
        )

    undo.callback(module.register_forward_pre_hook(widen).remove)
