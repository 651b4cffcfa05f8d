"""Keeps the hidden states of examples, so that the layers below them run once an example."""

from __future__ import annotations

import tempfile
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

Compute = Callable[[Tensor], Tensor]


@dataclass
class _Shelf:
    """What is known of the examples of one key.

    Attributes:
        memory: (tokens, width) by example.
        disk: where an example begins in `file`, in bytes.
        file: has no name, so that it is gone when its process is, however that ends.
    """

    memory: dict[int, Tensor] = field(default_factory=dict)
    disk: dict[int, int] = field(default_factory=dict)
    file: BinaryIO | None = None
    memory_bytes: int = 0
    disk_bytes: int = 0
    dtype: torch.dtype = torch.float32
    width: int = 0

    def __contains__(self, index: int) -> bool:
        return index in self.memory or index in self.disk

    def close(self) -> None:
        if self.file is not None:
            self.file.close()


class HiddenStates:
    """Hidden states by key and example: first in memory, then on disk, within both budgets.

    A key says what the hidden states depend on beside the example: the form of the backbone, the
    depth, the split. Only real tokens are kept, in the dtype in which they come, on the host.
    Where no room is left, the key that was asked for least recently goes as a whole; what is
    larger than everything else together is not kept and is computed each time.

    The disk part is a file without a name for each key, of this process alone: nothing is left
    behind and no other process sees it.

    Attributes:
        hits: rows that were asked for and there.
        misses: examples that had to be computed.

    Args:
        memory: budget in bytes.
        disk: budget in bytes; 0 keeps nothing there.
        folder: where the files lie; None is the system's folder for temporary files.
    """

    def __init__(self, memory: int, disk: int = 0, folder: Path | None = None) -> None:
        self.hits = self.misses = 0
        self._memory, self._disk, self._folder = memory, disk, folder
        self._shelves: OrderedDict[Hashable, _Shelf] = OrderedDict()

    @property
    def memory_bytes(self) -> int:
        """Bytes held in memory."""
        return sum(shelf.memory_bytes for shelf in self._shelves.values())

    @property
    def disk_bytes(self) -> int:
        """Bytes held on disk."""
        return sum(shelf.disk_bytes for shelf in self._shelves.values())

    @property
    def n_bytes(self) -> int:
        """Bytes held in all."""
        return self.memory_bytes + self.disk_bytes

    def rows(
        self,
        key: Hashable,
        lengths: Tensor,
        indices: Tensor,
        compute: Compute,
        device: torch.device,
        *,
        n_tokens: int | None = None,
    ) -> Tensor:
        """The hidden states of some examples, (rows, tokens, width), zero where padded.

        What is missing is computed, each example once, and kept if there is room. An error in
        `compute` leaves everything as it was.

        Args:
            key: what the hidden states depend on beside the example.
            lengths: (examples,) in tokens, of all examples of the key.
            indices: (rows,), which examples; one may stand there more than once.
            compute: from (missing examples,) to their hidden states (missing, longest or more,
                width).
            device: of the result.
            n_tokens: to pad to; None is the longest of the rows.
        """
        with torch.inference_mode(False), torch.no_grad():
            rows = indices.tolist()
            missing = sorted({i for i in rows if not self._holds(key, i)})
            computed: dict[int, Tensor] = {}
            if missing:
                computed = _examples(compute(torch.tensor(missing)), lengths[missing], missing)
            shelf = self._shelves.setdefault(key, _Shelf())
            self._shelves.move_to_end(key)
            self.misses += len(missing)
            self.hits += len(rows) - sum(i in computed for i in rows)
            sizes = lengths[indices].tolist()
            examples = {
                i: computed[i] if i in computed else _read(shelf, i, size)
                for i, size in zip(rows, sizes, strict=True)
            }
            self._keep(shelf, computed)
            tokens = max(sizes) if n_tokens is None else n_tokens
            return _padded([examples[i] for i in rows], tokens, device)

    def clear(self) -> None:
        """Lets go of everything; the counts stay."""
        while self._shelves:
            self._drop_oldest()

    def _holds(self, key: Hashable, index: int) -> bool:
        return key in self._shelves and index in self._shelves[key]

    def _keep(self, shelf: _Shelf, examples: dict[int, Tensor]) -> None:
        """Puts examples where room is, or makes room for them; the rest is not kept."""
        if not examples:
            return
        n_bytes = sum(example.nbytes for example in examples.values())
        while not (self._has_memory(n_bytes) or self._has_disk(n_bytes)) and len(self._shelves) > 1:
            self._drop_oldest()
        if self._has_memory(n_bytes):
            shelf.memory |= examples
            shelf.memory_bytes += n_bytes
        elif self._has_disk(n_bytes):
            self._write(shelf, examples)

    def _has_memory(self, n_bytes: int) -> bool:
        return self.memory_bytes + n_bytes <= self._memory

    def _has_disk(self, n_bytes: int) -> bool:
        return self.disk_bytes + n_bytes <= self._disk

    def _write(self, shelf: _Shelf, examples: dict[int, Tensor]) -> None:
        """Appends to the file of a key; a disk that is full gets no more."""
        first = next(iter(examples.values()))
        shelf.dtype, shelf.width = first.dtype, first.shape[1]
        try:
            if shelf.file is None:
                shelf.file = tempfile.TemporaryFile(dir=self._folder, buffering=0)  # noqa: SIM115
            start = shelf.disk_bytes
            for index, example in examples.items():
                _write_all(shelf.file, example, start)
                shelf.disk[index], start = start, start + example.nbytes
                shelf.disk_bytes = start
        except OSError:
            self._disk = self.disk_bytes

    def _drop_oldest(self) -> None:
        _, shelf = self._shelves.popitem(last=False)
        shelf.close()


def _examples(hidden: Tensor, lengths: Tensor, indices: list[int]) -> dict[int, Tensor]:
    """The real tokens of each row, (tokens, width), on the host, side by side."""
    sizes = lengths.tolist()
    real = torch.cat([row[:size] for row, size in zip(hidden, sizes, strict=True)])
    return dict(zip(indices, real.cpu().split(sizes), strict=True))


def _padded(examples: list[Tensor], tokens: int, device: torch.device) -> Tensor:
    """Examples (tokens, width) as (rows, tokens, width) on `device`."""
    pinned = device.type == "cuda"
    shape = (len(examples), tokens, examples[0].shape[1])
    rows = torch.zeros(shape, dtype=examples[0].dtype, pin_memory=pinned)
    for row, example in zip(rows, examples, strict=True):
        row[: len(example)] = example
    return rows.to(device, non_blocking=pinned)


def _read(shelf: _Shelf, index: int, n_tokens: int) -> Tensor:
    """One example, (tokens, width)."""
    if index in shelf.memory:
        return shelf.memory[index]
    assert shelf.file is not None
    shelf.file.seek(shelf.disk[index])
    content = bytearray(shelf.file.read(n_tokens * shelf.width * shelf.dtype.itemsize))
    return torch.frombuffer(content, dtype=shelf.dtype).view(n_tokens, shelf.width)


def _write_all(file: BinaryIO, example: Tensor, start: int) -> None:
    """Writes at `start`, in as many pieces as the system wants."""
    content = example.contiguous().view(torch.uint8).numpy().data.cast("B")
    file.seek(start)
    while content:
        content = content[file.write(content) :]
