"""Forward hooks that apply the parts of members to the outputs of linears and norms."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autopeft.method.method import Branch, Context, Offset, Part, Weights
from autopeft.method.registry import Placed
from autopeft.method.rows import Pieces, Rows, by_size
from autopeft.method.sites import Columns, Layer

Inputs = tuple[Any, ...]


@dataclass(frozen=True)
class TrainedSite:
    """A placement at one site with its tensors and what they do there."""

    placed: Placed
    layer: Layer
    weights: Mapping[str, nn.Parameter]
    part: Part

    @property
    def module(self) -> nn.Module:
        """The linear or norm at which the site is."""
        return self.layer.module(self.placed.site.at)

    def branch(self, dtype: torch.dtype) -> Branch:
        """The part for an input of `dtype`."""
        method, site = self.placed.method, self.placed.site
        part = (
            self.part if dtype != torch.bfloat16 else method.part(site, _cast(self.weights, dtype))
        )
        assert isinstance(part, Branch)
        return part

    @property
    def kind(self) -> Hashable:
        """Equal for sites of two members that differ in nothing but the values of tensors."""
        shapes = tuple(weight.shape for weight in self.weights.values())
        return self.placed.key, self.placed.method, shapes


@dataclass(frozen=True)
class _Edit:
    """Sites of one kind, of one or more members.

    Attributes:
        sites: by member.
        stage: 0 for a part that reads the input of its module or an earlier one; one that reads
            the output sees what all stages before have made of it, like in a merged model.
        recall: gives a tapped input.
    """

    sites: dict[int, TrainedSite]
    stage: int
    recall: Callable[[], Tensor] | None

    @property
    def first(self) -> TrainedSite:
        """Any of the sites."""
        return next(iter(self.sites.values()))

    def source(self, x: Tensor, output: Tensor) -> Tensor:
        """What the part reads, given the input and the output of its module."""
        return output if self.stage else self.recall() if self.recall else x

    def alone(self, member: int, module: nn.Module, source: Tensor, output: Tensor) -> Tensor:
        """The change of `output`, all rows of which belong to one member, in its dtype."""
        trained = self.sites[member]
        if isinstance(trained.part, Offset):
            return self._fit(trained.part.vector, output)
        x = in_range(source)
        return self._fit(trained.branch(x.dtype).change(x, module.training), output)

    def together(
        self, members: tuple[int, ...], module: nn.Module, source: Pieces, output: Tensor
    ) -> Tensor:
        """The changes (members, rows or 1, ..., width) of `output`, (all rows, ..., width).

        The members have equally many rows.
        """
        if len(members) == 1:
            change = self.alone(members[0], module, source.of(members)[0], output)[None]
        else:
            names = self.first.weights
            sites = [self.sites[member] for member in members]
            weights = {
                name: torch.stack([trained.weights[name] for trained in sites]) for name in names
            }
            change = self._fit(self._vectorized(weights, source.of(members), module), output)
        missing = output.dim() + 1 - change.dim()
        return change.view(len(members), *[1] * missing, *change.shape[1:])

    def _vectorized(self, weights: Weights, source: Tensor, module: nn.Module) -> Tensor:
        training = module.training
        method, site = self.first.placed.method, self.first.placed.site

        def vector(weights: Weights) -> Tensor:
            part = method.part(site, weights)
            assert isinstance(part, Offset)
            return part.vector

        def change(weights: Weights, x: Tensor) -> Tensor:
            part = method.part(site, weights)
            assert isinstance(part, Branch)
            return part.change(x, training)

        if isinstance(self.first.part, Offset):
            return torch.vmap(vector)(weights)
        x = in_range(source)
        return torch.vmap(change, randomness="different")(_cast(weights, x.dtype), x)

    def _fit(self, change: Tensor, output: Tensor) -> Tensor:
        columns = self.first.layer.columns(self.first.placed.site.at)
        change = change.to(output.dtype)
        return change if columns is None else _spread(change, columns, output)


def edit_outputs(members: Sequence[Iterable[TrainedSite]], rows: Rows, undo: ExitStack) -> None:
    """Hooks the parts of every member onto their modules until `undo` closes.

    On one module, parts that read its output come after all others: they see what a merged model
    would give.
    """
    stash: dict[int, Tensor] = {}
    undo.callback(stash.clear)
    edits: dict[nn.Module, dict[Hashable, _Edit]] = {}
    for member, sites in enumerate(members):
        last: dict[nn.Module, int] = {}
        for trained in sites:
            if isinstance(trained.part, Context):
                continue
            module, stage = trained.module, 0
            if isinstance(trained.part, Branch) and trained.part.source == "output":
                stage = last[module] = last.get(module, 0) + 1
            own = edits.setdefault(module, {})
            kind = stage, trained.kind
            if kind not in own:
                own[kind] = _edit(trained, stage, rows, stash, undo)
            own[kind].sites[member] = trained
    for module, found in edits.items():
        ordered = sorted(found.values(), key=lambda edit: edit.stage)
        undo.callback(module.register_forward_hook(_apply(ordered, rows)).remove)


def in_range(x: Tensor) -> Tensor:
    """`x` in a dtype with the range of the trained tensors, which are float32.

    bfloat16 has it. Under autocast, which decides itself, everything stays as it is.
    """
    return x if x.dtype == torch.bfloat16 else widened(x)


def widened(x: Tensor) -> Tensor:
    """`x` in the dtype of the trained tensors; as it is under autocast, which decides itself."""
    kind = x.device.type
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        return x
    return x.float()


def _cast(weights: Weights, dtype: torch.dtype) -> Weights:
    """The weights for an input of `dtype`: bfloat16 for such a one, else as they are."""
    if dtype != torch.bfloat16:
        return weights
    return {name: weight.to(dtype) for name, weight in weights.items()}


def _edit(
    trained: TrainedSite, stage: int, rows: Rows, stash: dict[int, Tensor], undo: ExitStack
) -> _Edit:
    """An edit without members; a part that reads another module's input has that tapped."""
    sites: dict[int, TrainedSite] = {}
    if not isinstance(trained.part, Branch) or trained.part.source in ("input", "output"):
        return _Edit(sites, stage, None)

    def tap(module: nn.Module, inputs: Inputs) -> None:
        if any(map(rows.have, sites)):
            stash[id(sites)] = inputs[0]

    tapped = trained.layer.module(trained.part.source)
    undo.callback(tapped.register_forward_pre_hook(tap).remove)
    return _Edit(sites, stage, lambda: stash.pop(id(sites)))


def _apply(edits: Sequence[_Edit], rows: Rows) -> Callable[[nn.Module, Inputs, Tensor], Tensor]:
    stages = [list(stage) for _, stage in itertools.groupby(edits, lambda edit: edit.stage)]

    def apply(module: nn.Module, inputs: Inputs, output: Tensor) -> Tensor:
        if rows.sole is None:
            for stage in stages:
                output = _staged(stage, module, inputs[0], output, rows)
            return output
        for edit in edits:
            if rows.sole in edit.sites:
                source = edit.source(inputs[0], output)
                output = output + edit.alone(rows.sole, module, source, output)
        return output

    return apply


def _staged(
    edits: Sequence[_Edit], module: nn.Module, x: Tensor, output: Tensor, rows: Rows
) -> Tensor:
    """The output of several members with the changes of edits that do not read each other's."""
    cut = rows.slices(len(output))
    pieces: dict[Tensor, Pieces] = {}
    changes: list[tuple[tuple[int, ...], Tensor]] = []
    for edit in edits:
        groups = by_size(edit.sites, cut)
        if groups:
            source = edit.source(x, output)
            own = pieces.setdefault(source, Pieces(source, cut))
            changes += [(group, edit.together(group, module, own, output)) for group in groups]
    return _changed(output, changes, cut)


def _changed(
    output: Tensor, changes: Sequence[tuple[tuple[int, ...], Tensor]], cut: Mapping[int, slice]
) -> Tensor:
    """`output` plus changes, (members, rows or 1, ..., width) for the members that stand first."""
    everyone = tuple(cut)
    own: dict[int, Tensor] = {}
    for members, change in changes:
        if members == everyone:
            output = (output.unflatten(0, (len(members), -1)) + change).flatten(0, 1)
            continue
        for member, delta in zip(members, change.unbind(), strict=True):
            own[member] = own[member] + delta if member in own else delta
    if not own:
        return output
    none = output.new_zeros(())
    deltas = [
        own.get(member, none).expand(rows.stop - rows.start, *output.shape[1:])
        for member, rows in cut.items()
    ]
    return output + torch.cat(deltas)


def _spread(delta: Tensor, columns: Columns, output: Tensor) -> Tensor:
    """`delta`, (..., columns), as wide as `output`, with zeros elsewhere."""
    if isinstance(columns, slice):
        return F.pad(delta, (columns.start, output.shape[-1] - columns.stop))
    zeros = delta.new_zeros(*delta.shape[:-1], output.shape[-1])
    return zeros.index_copy(-1, columns.to(delta.device), delta)
