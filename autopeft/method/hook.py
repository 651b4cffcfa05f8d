"""Forward hooks that apply the parts of members to what leaves linears and norms, or enters."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.pytorch_utils import Conv1D

from autopeft.method.gate import gated_part, parted
from autopeft.method.method import (
    BIAS,
    INPUT,
    OF_TEXT,
    OUTPUT,
    RAW,
    WEIGHT,
    Change,
    Part,
    Weights,
)
from autopeft.method.registry import Placed
from autopeft.method.rows import Pieces, Rows, by_size
from autopeft.method.sites import Columns, Layer
from autopeft.method.text import Text

Inputs = tuple[Any, ...]

BASE = (WEIGHT, BIAS)
"""What all members read alike."""


@dataclass(frozen=True)
class TrainedSite:
    """A placement at one site with its tensors and what they do there.

    Attributes:
        weights: those that are trained.
        frozen: the others.
    """

    placed: Placed
    layer: Layer
    weights: Mapping[str, nn.Parameter]
    frozen: Mapping[str, Tensor]

    @property
    def module(self) -> nn.Module:
        """The linear or norm at which the site is."""
        return self.layer.module(self.placed.site.at)

    @property
    def columns(self) -> slice | Tensor | None:
        """Those of the outputs of that linear which are its own, None for all."""
        return self.layer.columns(self.placed.site.at)

    @property
    def reader(self) -> nn.Module | None:
        """The linear whose input a change reads; None where it reads what leaves `module`."""
        assert isinstance(self.part, Change)
        read = self.part.reads[0]
        return None if read == OUTPUT else self.module if read == INPUT else self.layer.module(read)

    @property
    def device(self) -> torch.device:
        """Where its tensors are."""
        return self.module.get_parameter("weight").device

    @property
    def tensors(self) -> Weights:
        """All of them."""
        return {**self.weights, **self.frozen}

    @cached_property
    def part(self) -> Part:
        """What they do."""
        return self.part_of(self.tensors)

    @property
    def is_gated(self) -> bool:
        """Whether the text says how much the part does."""
        return bool(parted(self.tensors)[1])

    def part_of(self, tensors: Weights) -> Part:
        """What other tensors of the same names would do here."""
        own, gate = parted(tensors)
        part = self.placed.method.part(self.placed.site, own)
        return gated_part(part, gate) if gate else part

    def change(self, dtype: torch.dtype) -> Callable[..., Tensor]:
        """What the part adds, of inputs of `dtype`."""
        narrow = dtype == torch.bfloat16
        part = self.part_of(_cast(self.tensors, dtype)) if narrow else self.part
        assert isinstance(part, Change)
        return part.change

    def base_weight(self) -> Tensor:
        """The weight of the frozen module, (outputs of the role, inputs); packed if quantized."""
        weight = self.module.get_parameter("weight").detach()
        if not weight.is_floating_point():
            return weight
        weight = weight.T if isinstance(self.module, Conv1D) else weight
        return weight if self.columns is None else weight[self.columns]

    def base_bias(self) -> Tensor:
        """The bias of the frozen module, (outputs of the role,), zero where it has none."""
        bias = getattr(self.module, "bias", None)
        if bias is None:
            return self.base_weight().new_zeros(self.base_weight().shape[0])
        return bias.detach() if self.columns is None else bias.detach()[self.columns]

    @property
    def kind(self) -> Hashable:
        """Equal for sites of two members that differ in nothing but the values of tensors."""
        shapes = tuple(weight.shape for weight in self.weights.values())
        return self.placed.key, self.placed.method, shapes


@dataclass(frozen=True)
class _Edit:
    """Sites of one kind, of one or more members, that change what a module returns or is given.

    Attributes:
        sites: by member.
        stage: 0 for a part that does not see what others change; each that does has a stage of
            its own after those before it, like in a merged model.
        recall: gives tapped inputs by role.
        text: of the present pass.
    """

    sites: dict[int, TrainedSite]
    stage: int
    recall: Mapping[str, Callable[[], Tensor]]
    text: Text

    @property
    def first(self) -> TrainedSite:
        """Any of the sites."""
        return next(iter(self.sites.values()))

    @property
    def part(self) -> Change:
        """What all of them do, with the tensors of the first."""
        part = self.first.part
        assert isinstance(part, Change)
        return part

    @property
    def columns(self) -> Columns | None:
        """Of what is changed; None for all."""
        return None if self.part.side == INPUT else self.first.columns

    def read(self, name: str, x: Tensor, raw: Tensor, changed: Tensor) -> Tensor:
        """One of the things that the part reads.

        Args:
            name: of it.
            x: the input of the module.
            raw: what is changed, as it came.
            changed: the same with earlier changes.
        """
        if name in (OUTPUT, RAW):
            whole = changed if name == OUTPUT else raw
            return whole if self.columns is None else whole[..., self.columns]
        if name in OF_TEXT:
            return self.text.read(name, self.first.layer, x)
        if name in BASE:
            return self.first.base_weight() if name == WEIGHT else self.first.base_bias()
        return (changed if self.part.side == INPUT else x) if name == INPUT else self.recall[name]()

    def alone(
        self, member: int, module: nn.Module, sources: Sequence[Tensor], changed: Tensor
    ) -> Tensor:
        """The change of `changed`, all rows of which belong to one member, in its dtype."""
        read = [in_range(source) for source in sources]
        dtype = read[0].dtype if read else torch.float32
        return self._fit(self.sites[member].change(dtype)(*read, module.training), changed)

    def together(
        self,
        members: tuple[int, ...],
        module: nn.Module,
        sources: Sequence[Tensor | Pieces],
        changed: Tensor,
    ) -> Tensor:
        """The changes (members, rows or 1, ..., width) of `changed`, (all rows, ..., width).

        The members have equally many rows. What all of them read alike comes as a tensor.
        """
        own = [s.of(members) if isinstance(s, Pieces) else s for s in sources]
        each = [0 if isinstance(source, Pieces) else None for source in sources]
        if len(members) == 1 or not self.first.placed.method.vectorizes:
            changes = []
            for i, member in enumerate(members):
                mine = [o if e is None else o[i] for o, e in zip(own, each, strict=True)]
                changes.append(self.alone(member, module, mine, changed))
            change = changes[0][None] if len(changes) == 1 else torch.stack(changes)
        else:
            change = self._fit(self._vectorized(members, own, each, module.training), changed)
        missing = changed.dim() + 1 - change.dim()
        return change.view(len(members), *[1] * missing, *change.shape[1:])

    def _vectorized(
        self,
        members: tuple[int, ...],
        sources: Sequence[Tensor],
        each: Sequence[int | None],
        training: bool,
    ) -> Tensor:
        tensors = [self.sites[member].tensors for member in members]
        weights: Weights = {n: torch.stack([of[n] for of in tensors]) for n in tensors[0]}

        def change(weights: Weights, *read: Tensor) -> Tensor:
            part = self.first.part_of(weights)
            assert isinstance(part, Change)
            return part.change(*read, training)

        read = [in_range(source) for source in sources]
        weights = _cast(weights, read[0].dtype) if read else weights
        vectorized = torch.vmap(change, in_dims=(0, *each), randomness="different")
        return vectorized(weights, *read)

    def _fit(self, change: Tensor, changed: Tensor) -> Tensor:
        change = change.to(changed.dtype)
        return change if self.columns is None else _spread(change, self.columns, changed)


def edit(members: Sequence[Iterable[TrainedSite]], rows: Rows, text: Text, undo: ExitStack) -> None:
    """Hooks the parts of every member onto their modules until `undo` closes.

    On one module, parts that read its output come after all others: they see what a merged model
    would give.
    """
    stash: dict[tuple[int, str], Tensor] = {}
    undo.callback(stash.clear)
    edits: dict[tuple[nn.Module, str], dict[Hashable, _Edit]] = {}
    for member, sites in enumerate(members):
        last: dict[tuple[nn.Module, str], int] = {}
        for trained in sites:
            if not isinstance(trained.part, Change):
                continue
            place, stage = (trained.module, trained.part.side), 0
            if trained.part.is_ordered:
                stage = last[place] = last.get(place, 0) + 1
            by_kind = edits.setdefault(place, {})
            kind = stage, trained.kind
            if kind not in by_kind:
                by_kind[kind] = _edit(trained, stage, rows, text, stash, undo)
            by_kind[kind].sites[member] = trained
    for (module, side), by_kind in edits.items():
        ordered = sorted(by_kind.values(), key=lambda edit: edit.stage)
        apply = _apply(ordered, rows)
        if side == INPUT:
            undo.callback(module.register_forward_pre_hook(_entering(apply)).remove)
        else:
            undo.callback(module.register_forward_hook(apply).remove)


def in_range(x: Tensor) -> Tensor:
    """`x` in a dtype with the range of the trained tensors, which are float32.

    bfloat16 has it, bool needs none. Under autocast, which decides itself, everything stays.
    """
    return x if x.dtype in (torch.bfloat16, torch.bool) else widened(x)


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
    return {n: w.to(dtype) if w.is_floating_point() else w for n, w in weights.items()}


def _edit(
    trained: TrainedSite,
    stage: int,
    rows: Rows,
    text: Text,
    stash: dict[tuple[int, str], Tensor],
    undo: ExitStack,
) -> _Edit:
    """An edit without members; where it reads the input of another module, that is tapped."""
    assert isinstance(trained.part, Change)
    sites: dict[int, TrainedSite] = {}
    recall: dict[str, Callable[[], Tensor]] = {}
    for name in trained.part.reads:
        if name not in (INPUT, OUTPUT, RAW, *OF_TEXT, *BASE):
            key = id(sites), name
            tap = partial(_tap, stash, key, rows, sites)
            tapped = trained.layer.module(name)
            undo.callback(tapped.register_forward_pre_hook(tap).remove)
            recall[name] = partial(stash.pop, key)
    return _Edit(sites, stage, recall, text)


def _tap(
    stash: dict[tuple[int, str], Tensor],
    key: tuple[int, str],
    rows: Rows,
    sites: Iterable[int],
    module: nn.Module,
    inputs: Inputs,
) -> None:
    if any(map(rows.have, sites)):
        stash[key] = inputs[0]


Apply = Callable[[nn.Module, Inputs, Tensor], Tensor]


def _apply(edits: Sequence[_Edit], rows: Rows) -> Apply:
    stages = [list(stage) for _, stage in itertools.groupby(edits, lambda edit: edit.stage)]

    def apply(module: nn.Module, inputs: Inputs, raw: Tensor) -> Tensor:
        changed = raw
        if rows.sole is None:
            for stage in stages:
                changed = _staged(stage, module, inputs[0], raw, changed, rows)
            return changed
        for edit in edits:
            if rows.sole in edit.sites:
                sources = [edit.read(name, inputs[0], raw, changed) for name in edit.part.reads]
                changed = changed + edit.alone(rows.sole, module, sources, changed)
        return changed

    return apply


def _entering(apply: Apply) -> Callable[[nn.Module, Inputs], Inputs]:
    """A hook that changes the input of a module as `apply` would its output."""

    def enter(module: nn.Module, inputs: Inputs) -> Inputs:
        return apply(module, inputs, inputs[0]), *inputs[1:]

    return enter


def _staged(
    edits: Sequence[_Edit], module: nn.Module, x: Tensor, raw: Tensor, changed: Tensor, rows: Rows
) -> Tensor:
    """What several members make of `changed` with edits that do not read each other's changes."""
    cut = rows.slices(len(changed))
    pieces: dict[Tensor, Pieces] = {}
    changes: list[tuple[tuple[int, ...], Tensor]] = []
    for edit in edits:
        groups = by_size(edit.sites, cut)
        if groups:
            sources: list[Tensor | Pieces] = []
            for name in edit.part.reads:
                source = edit.read(name, x, raw, changed)
                cuts = name not in BASE
                sources.append(pieces.setdefault(source, Pieces(source, cut)) if cuts else source)
            changes += [(group, edit.together(group, module, sources, changed)) for group in groups]
    return _changed(changed, changes, cut)


def _changed(
    output: Tensor, changes: Sequence[tuple[tuple[int, ...], Tensor]], cut: Mapping[int, slice]
) -> Tensor:
    """`output` plus changes, (members, rows or 1, ..., width) for the members that stand first."""
    everyone = tuple(cut)
    partial: dict[int, Tensor] = {}
    for members, change in changes:
        if members == everyone:
            output = (output.unflatten(0, (len(members), -1)) + change).flatten(0, 1)
            continue
        for member, delta in zip(members, change.unbind(), strict=True):
            partial[member] = partial[member] + delta if member in partial else delta
    if not partial:
        return output
    none = output.new_zeros(())
    deltas = [
        partial.get(member, none).expand(rows.stop - rows.start, *output.shape[1:])
        for member, rows in cut.items()
    ]
    return output + torch.cat(deltas)


def _spread(delta: Tensor, columns: Columns, output: Tensor) -> Tensor:
    """`delta`, (..., columns), as wide as `output`, with zeros elsewhere."""
    if isinstance(columns, slice):
        return F.pad(delta, (columns.start, output.shape[-1] - columns.stop))
    zeros = delta.new_zeros(*delta.shape[:-1], output.shape[-1])
    return zeros.index_copy(-1, columns.to(delta.device), delta)
