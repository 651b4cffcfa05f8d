"""Whose rows of a batch are whose."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from autopeft.core.errors import AttachError


class Rows:
    """The rows of the coming forward passes by member: consecutive ones, in the members' order.

    A sole member owns all rows.

    Args:
        members: how many there are.
    """

    def __init__(self, members: int) -> None:
        self._members = members
        self._sizes: tuple[int, ...] | None = None
        self._slices: dict[int, dict[int, slice]] = {}
        self.sole: int | None = 0 if members == 1 else None

    def split(self, sizes: Sequence[int]) -> None:
        """Gives each member as many rows as `sizes` says; 0 for one that sits out.

        Raises:
            AttachError: not one number a member, a negative one, or no rows at all.
        """
        if len(sizes) != self._members or min(sizes, default=0) < 0 or not sum(sizes):
            reason = f"must be the rows of each of {self._members} members, got {list(sizes)}"
            raise AttachError(reason, "sizes")
        active = [member for member, size in enumerate(sizes) if size]
        self.sole = active[0] if len(active) == 1 else None
        self._sizes = tuple(sizes)
        self._slices.clear()

    def have(self, member: int) -> bool:
        """Whether `member` has any rows; what it has is not known before the first split."""
        return self._sizes is None or self._sizes[member] > 0

    def slices(self, length: int) -> dict[int, slice]:
        """The rows of each member that has any, in a tensor of `length` rows.

        Where an architecture has flattened positions or windows into the rows, each row of the
        batch is several rows here.

        Raises:
            AttachError: nothing was split, or the batch has another number of rows.
        """
        if length not in self._slices:
            self._slices[length] = self._cut(length)
        return self._slices[length]

    def _cut(self, length: int) -> dict[int, slice]:
        if self._sizes is None:
            raise AttachError(f"{self._members} members share the rows; split them first")
        total = sum(self._sizes)
        if length % total:
            raise AttachError(f"{total} rows were split, but {length} came", "sizes")
        ends = [sum(self._sizes[: i + 1]) * (length // total) for i in range(self._members)]
        starts = [0, *ends]
        return {i: slice(starts[i], ends[i]) for i in range(self._members) if starts[i] < ends[i]}


def by_size(members: Iterable[int], cut: Mapping[int, slice]) -> list[tuple[int, ...]]:
    """The members that have rows, those with equally many together."""
    sizes: dict[int, list[int]] = {}
    for member in members:
        if member in cut:
            sizes.setdefault(cut[member].stop - cut[member].start, []).append(member)
    return [tuple(equal) for equal in sizes.values()]


def stacked(x: Tensor, members: Sequence[int], cut: Mapping[int, slice]) -> Tensor:
    """The rows of some members, which have equally many, as (members, rows, ...)."""
    own = [cut[member] for member in members]
    if all(a.stop == b.start for a, b in itertools.pairwise(own)):
        return x[own[0].start : own[-1].stop].unflatten(0, (len(own), -1))
    return torch.stack([x[rows] for rows in own])
