"""Whose rows of a batch are whose."""

from __future__ import annotations

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

    def of_each(self, length: int) -> dict[int, slice]:
        """Like `slices`, also where one member has all rows."""
        return self.slices(length) if self.sole is None else {self.sole: slice(0, length)}

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


class Pieces:
    """A tensor by member, cut at most once: the gradients of all pieces flow back in one copy.

    Args:
        x: of shape (rows, ...).
        cut: the rows of each member.
    """

    def __init__(self, x: Tensor, cut: Mapping[int, slice]) -> None:
        self._x, self._cut = x, cut
        self._pieces: dict[int, Tensor] = {}

    def of(self, members: tuple[int, ...]) -> Tensor:
        """The rows of members that have equally many, (members, rows, ...)."""
        if members == tuple(self._cut):
            return self._x.unflatten(0, (len(members), -1))
        if not self._pieces:
            sizes = [rows.stop - rows.start for rows in self._cut.values()]
            self._pieces = dict(zip(self._cut, self._x.split(sizes), strict=True))
        return torch.stack([self._pieces[member] for member in members])
