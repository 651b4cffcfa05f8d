"""What the CPU's allocator really hands out while a function runs: the truth of predictions."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import accumulate

import torch
from torch.profiler import ProfilerActivity, profile

_EVENT = "[memory]"


def measured_peak(step: Callable[[], object], held: Iterable[torch.Tensor]) -> int:
    """Most bytes allocated at once while `step` runs, on the CPU.

    The allocator's own events are summed, so workspaces inside kernels count too; memory that the
    C library keeps for later does not.

    Args:
        step: what is measured.
        held: tensors that exist before and after; each storage counts once.
    """
    before = {t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in held}
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        step()
    results = recorded.profiler.kineto_results
    events = [event for event in results.events() if event.name() == _EVENT]
    changes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    return sum(before.values()) + max(accumulate(changes, initial=0))
