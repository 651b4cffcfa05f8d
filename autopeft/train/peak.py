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
        self._device = device if device.type == "cuda" else None
        self._is_alone = False

    def begin(self, *, is_alone: bool) -> None:
        """Watches from here on; what is taken by several is nobody's own."""
        self._is_alone = is_alone
        if self._device is not None:
            torch.cuda.reset_peak_memory_stats(self._device)

    def measured(self) -> dict[str, float]:
        """Bytes at most since then, as a metric, where one trained alone."""
        if self._device is None or not self._is_alone:
            return {}
        return {MEASURED: float(torch.cuda.max_memory_allocated(self._device))}
