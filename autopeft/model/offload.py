"""Activations in the memory of the host between the forward and the backward pass."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks


@contextmanager
def offloaded(held: Iterable[Tensor]) -> Iterator[None]:
    """Keeps what the forward pass inside the block saves for the backward pass on the host.

    The backward pass brings each storage back, once for all that need it at the time. On a CPU
    nothing happens; storages of the meta device leave and come back as those of any other.

    Args:
        held: tensors that stay on the device anyway and are not copied: parameters and buffers of
            the model, trained tensors, the batch. The device is theirs.
    """
    stays = {t.untyped_storage()._cdata for t in held if t.device.type != "cpu"}
    if not stays:
        yield
        return
    host = Host(stays)
    with saved_tensors_hooks(host.pack, host.unpack):
        yield


class Host:
    """What one forward pass has moved; a storage that several operations save moves once.

    Args:
        stays: identities of the storages that do not move.
    """

    def __init__(self, stays: set[int]) -> None:
        self._stays = stays
        self._moved: weakref.WeakKeyDictionary[torch.UntypedStorage, tuple[int, _Bytes]] = (
            weakref.WeakKeyDictionary()
        )

    def pack(self, tensor: Tensor) -> Tensor | _Saved:
        """What autograd keeps instead of `tensor`."""
        storage = tensor.untyped_storage()
        if not storage.nbytes() or storage._cdata in self._stays:
            return tensor
        version, moved = self._moved.get(storage, (None, None))
        if moved is None or version != tensor._version:  # written to since then
            moved = _Bytes(storage)
            self._moved[storage] = tensor._version, moved
        offset = int(tensor.storage_offset())
        return _Saved(moved, tensor.dtype, offset, tensor.shape, tensor.stride())

    @staticmethod
    def unpack(packed: Tensor | _Saved) -> Tensor:
        """The tensor that was packed, on its device."""
        return packed.tensor() if isinstance(packed, _Saved) else packed


class _Bytes:
    """A copy of a storage on the host, pinned for CUDA; without data if the storage has none."""

    def __init__(self, storage: torch.UntypedStorage) -> None:
        self.device, self._size = storage.device, storage.nbytes()
        self._data: Tensor | None = None
        self._back: weakref.ref[torch.UntypedStorage] | None = None
        if self.device.type != "meta":
            pinned = self.device.type == "cuda"
            self._data = torch.empty(self._size, dtype=torch.uint8, pin_memory=pinned)
            there = torch.empty(0, dtype=torch.uint8, device=self.device)
            self._data.copy_(there.set_(storage), non_blocking=True)

    def storage(self) -> torch.UntypedStorage:
        """The bytes on the device, in one place as long as anything refers to it."""
        storage = self._back() if self._back else None
        if storage is None:
            filled = torch.empty(self._size, dtype=torch.uint8, device=self.device)
            if self._data is not None:
                filled.copy_(self._data, non_blocking=True)
            storage = filled.untyped_storage()
            self._back = weakref.ref(storage)
        return storage


@dataclass(frozen=True)
class _Saved:
    """How a tensor lies in a storage that has moved; offset and strides in elements."""

    moved: _Bytes
    dtype: torch.dtype
    offset: int
    shape: torch.Size
    stride: tuple[int, ...]

    def tensor(self) -> Tensor:
        empty = torch.empty(0, dtype=self.dtype, device=self.moved.device)
        return empty.set_(self.moved.storage(), self.offset, self.shape, self.stride)
