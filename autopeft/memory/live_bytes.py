"""Which storages are alive while tensor operations run, and how many bytes they hold."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from autopeft.memory.replay import replay

_AUTOGRADS = 4, 2
"""Most references to a gradient, and to its storage, where autograd alone holds it."""

Expansion = Callable[..., Any]
REST = "activations"


class _Storage(weakref.ref):
    """A weak reference to a storage that remembers what it held."""

    __slots__ = ("key", "part", "size")
    key: int
    part: str
    size: int


class Live(TorchDispatchMode):
    """Follows every storage from its creation to its death, operation by operation.

    Inside `with live:` whatever an operation returns is entered; a storage leaves when nothing
    refers to it any more, exactly when an allocator would get it back.

    Attributes:
        live: bytes alive now, by part.
        peak: most bytes alive at once since the last `restart`.
        at_peak: bytes alive at that moment, by part; they sum to `peak`.
    """

    def __init__(self, granularity: int, host: bool) -> None:
        """Starts with nothing alive.

        Args:
            granularity: bytes that the device's allocator rounds sizes up to.
            host: whether tensors of the host's memory count.
        """
        super().__init__()
        self._granularity = granularity
        self._host = host
        self._expansions: dict[Any, Expansion] = {}
        self._storages: dict[int, _Storage] = {}
        self._gone = self._forget()
        self.live: dict[str, int] = {}
        self.restart()

    def restart(self) -> None:
        """Forgets the peak so far."""
        self.total = sum(self.live.values())
        self.peak = self.total
        self.at_peak = dict(self.live)

    @contextmanager
    def overlooking(self) -> Iterator[None]:
        """Inside the block nothing becomes the peak."""
        before = self.peak, self.at_peak
        yield
        self.peak, self.at_peak = before

    def expand(self, expansions: Mapping[Any, Expansion]) -> None:
        """Replaces operations whose kernels allocate more than their results.

        Args:
            expansions: functions that do the same with operations that hide nothing.
        """
        self._expansions.update(expansions)

    def assign(self, part: str, tensors: Iterable[torch.Tensor]) -> None:
        """Enters tensors made elsewhere, or moves known ones, to `part`."""
        for tensor in tensors:
            known = self._storages.get(tensor.untyped_storage()._cdata)
            if known is None:
                self._enter(tensor, part)
            elif known.part != part:
                self.live[known.part] -= known.size
                self.live[part] = self.live.get(part, 0) + known.size
                known.part = part
        self._look()

    def __torch_dispatch__(
        self,
        func: Any,
        types: Iterable[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        expansion = self._expansions.get(func)
        if expansion is not None:
            with self:
                return expansion(*args, **(kwargs or {}))
        if not kwargs and _accumulates(func, args):
            return args[0].add_(args[1])
        out = replay(func, args, kwargs or {})
        self._enter_all(out)
        self._look()
        return out

    def _enter_all(self, out: Any) -> None:
        if isinstance(out, torch.Tensor):
            self._enter(out, REST)
        elif isinstance(out, list | tuple):
            for item in out:
                self._enter_all(item)

    def _enter(self, tensor: torch.Tensor, part: str) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._storages or not (self._host or tensor.is_meta or tensor.is_cuda):
            return
        size = -(-storage.nbytes() // self._granularity) * self._granularity
        if not size:
            return
        entry = _Storage(storage, self._gone)
        entry.key, entry.part, entry.size = key, part, size
        self._storages[key] = entry
        self.live[part] = self.live.get(part, 0) + size
        self.total += size

    def _look(self) -> None:
        if self.total > self.peak:
            self.peak = self.total
            self.at_peak = dict(self.live)

    def _forget(self) -> Callable[[_Storage], None]:
        """The callback of dying storages; it does not keep the tracer alive."""
        tracer = weakref.ref(self)

        def gone(entry: _Storage) -> None:
            live = tracer()
            if live is not None:
                del live._storages[entry.key]
                live.live[entry.part] -= entry.size
                live.total -= entry.size

        return gone


def _accumulates(func: Any, args: Sequence[Any]) -> bool:
    """Whether autograd adds a gradient to one that it alone holds.

    It does so in place, but not under a mode, which asks for a new tensor.
    """
    in_backward = torch._C._current_graph_task_id() != -1 and not torch.is_grad_enabled()
    if func is not torch.ops.aten.add.Tensor or not in_backward:
        return False
    sum_so_far, gradient = args
    storage = sum_so_far.untyped_storage()
    counts = sum_so_far._use_count(), torch._C._storage_Use_Count(storage._cdata)
    is_alone = all(count <= most for count, most in zip(counts, _AUTOGRADS, strict=True))
    is_alike = isinstance(gradient, torch.Tensor) and sum_so_far.shape == gradient.shape
    return is_alone and is_alike and sum_so_far.is_contiguous()
