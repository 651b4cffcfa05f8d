"""The test suite."""

import gc
import os
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
HAS_BFLOAT16 = CPUINFO.is_file() and "avx512_bf16" in CPUINFO.read_text().split()

os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_BF16" if HAS_BFLOAT16 else "AVX2")
"""Kernels for AMX, and those that emulate bfloat16 with AVX-512, take 1 to 2 per cent of scratch
memory that predictions leave out."""

os.environ.setdefault("OMP_NUM_THREADS", "1")
"""Each of the processes that share the tests, and whatever they start, computes on one core."""

gc.set_threshold(100_000, 50, 50)
"""A third of the time of importing everything went into looking for garbage among it."""
