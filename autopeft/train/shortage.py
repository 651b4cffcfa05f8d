"""Tells errors that say that memory is short from others."""

from __future__ import annotations

import gc

import torch

from autopeft.core import host
from autopeft.core.config import PeftConfig
from autopeft.core.report import Failure, Shortage, described

_SIGNS = ("out of memory", "can't allocate memory", "not enough memory", "ALLOC_FAILED")
"""What allocators and libraries of CUDA say in errors of no kind of their own."""

SHARED = 0.15
"""The part of a device from which on others than this process count; each has a context on it."""


def is_short(error: BaseException) -> bool:
    """Whether an error says that memory is short."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _SIGNS)


def failure_of(
    number: int,
    error: Exception,
    config: PeftConfig,
    device: torch.device,
    *,
    is_alone: bool = True,
) -> Failure:
    """What an error is to a member; where others take memory, too, it deserves another go."""
    if not is_short(error):
        return Failure.of(number, error)
    if not is_alone or _is_shared(device):
        return Failure(number, described(error), fault="machine")
    name, total = "cpu", host.memory()
    if device.type == "cuda":
        about = torch.cuda.get_device_properties(device)
        name, total = about.name, about.total_memory
    shortage = Shortage.of(config, name, total)
    return Failure(number, described(error), shortage=shortage)


def _is_shared(device: torch.device) -> bool:
    """Whether other processes hold a good part of a device."""
    if device.type != "cuda":
        return False
    free, total = torch.cuda.mem_get_info(device)
    return total - free - torch.cuda.memory_reserved(device) > SHARED * total


def free() -> None:
    """Gives back memory that nothing holds any more."""
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
