"""Tells errors that say that memory is short from others."""

from __future__ import annotations

import gc

import psutil
import torch

from autopeft.core.config import PeftConfig
from autopeft.core.report import Shortage
from autopeft.core.settings import TrainSettings

_SIGNS = ("out of memory", "can't allocate memory", "not enough memory", "ALLOC_FAILED")
"""What allocators and libraries of CUDA say in errors of no kind of their own."""


def is_short(error: BaseException) -> bool:
    """Whether an error says that memory is short."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _SIGNS)


def shortage_of(error: BaseException, config: PeftConfig, device: torch.device) -> Shortage | None:
    """What a configuration alone has too little of; None where the error says nothing of it."""
    if not is_short(error):
        return None
    batch_size = TrainSettings(**dict(config.train)).batch_size
    if device.type == "cuda":
        about = torch.cuda.get_device_properties(device)
        return Shortage(about.name, about.total_memory, batch_size)
    return Shortage(device.type, psutil.virtual_memory().total, batch_size)


def free() -> None:
    """Gives back memory that nothing holds any more."""
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
