"""The most memory of a GPU that a training takes."""

from __future__ import annotations

import torch

from autopeft.core.report import MEASURED


class Peak:
    """Watches the allocator of a device; of one that is no GPU nothing is known.

    Args:
        device: of the backbone.
    """

    def __init__(self, device: torch.device) -> None:
        n_devices = torch.cuda.device_count() if device.type == "cuda" else 0
        self._devices = range(n_devices)  # a backbone may be spread over those of its worker
        self._is_alone = False

    def begin(self, *, is_alone: bool) -> None:
        """Watches from here on; what is taken by several is nobody's own."""
        self._is_alone = is_alone
        for device in self._devices:
            torch.cuda.reset_peak_memory_stats(device)

    def measured(self) -> dict[str, float]:
        """Bytes at most since then, as a metric, where one trained alone."""
        if not (self._devices and self._is_alone):
            return {}
        return {MEASURED: float(sum(map(torch.cuda.max_memory_allocated, self._devices)))}
