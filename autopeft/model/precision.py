"""Devices, and the precision in which each of them holds a backbone."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import BitsAndBytesConfig, PreTrainedModel
from transformers.quantizers.base import get_keys_to_not_convert

from autopeft.core.errors import StudyError, unknown

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_BFLOAT16_FLAGS = {"amx_bf16", "bf16"}


def dtype_of(name: str, automatic: torch.dtype) -> torch.dtype:
    """The precision that `dtype` of the settings names; `automatic` for `auto`."""
    return automatic if name == "auto" else _DTYPES[name]


def in_bits(
    quantization: str, dtype: torch.dtype, keep: Sequence[str] = (), threshold: float = 6.0
) -> BitsAndBytesConfig:
    """How bitsandbytes holds a backbone.

    Args:
        quantization: `nf4` (with quantized scales) or `int8`.
        dtype: in which it is multiplied.
        keep: paths of modules that stay as they are.
        threshold: of inputs that `int8` multiplies in 16 bits; 0 is none.
    """
    return BitsAndBytesConfig(
        load_in_4bit=quantization == "nf4",
        load_in_8bit=quantization == "int8",
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=list(keep),
        llm_int8_threshold=threshold,
    )


def spared(model: PreTrainedModel, keep: Sequence[str]) -> list[str]:
    """What no quantization touches: output embeddings, which may be tied, and `keep`."""
    return [*get_keys_to_not_convert(model), *keep]


def target_device(name: str) -> torch.device:
    """The device called `name`; `auto` is CUDA where there is one, else the CPU.

    Raises:
        StudyError: neither the CPU nor a CUDA device is called so.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise StudyError(unknown("device", name, ("auto", "cpu", "cuda")), "device")
    return torch.device(name)


def fast_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where `device` multiplies it faster than float32, else that.

    A CUDA device that is not in this machine counts as one that does, a CPU outside Linux as one
    that does not.
    """
    if device.type == "cuda":
        native = not torch.cuda.is_available() or torch.cuda.get_device_capability(device)[0] >= 8
    else:
        cpuinfo = Path("/proc/cpuinfo")
        on_linux = device.type == "cpu" and cpuinfo.is_file()
        native = on_linux and has_fast_bfloat16(cpuinfo.read_text(encoding="utf-8"))
    return torch.bfloat16 if native else torch.float32


def has_fast_bfloat16(cpuinfo: str) -> bool:
    """Whether a processor, as Linux describes it, multiplies bfloat16 faster than float32.

    With `avx512_bf16` AMD's do, and Intel's take twice as long; those need `amx_bf16`.
    """
    words = set(cpuinfo.split())
    return bool(_BFLOAT16_FLAGS & words) or {"AuthenticAMD", "avx512_bf16"} <= words
