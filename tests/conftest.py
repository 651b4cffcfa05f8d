"""Settings of the whole suite."""

import os

from hypothesis import settings

os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_BF16")
"""Kernels for AMX take about 1 per cent of scratch memory that predictions leave out."""

settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")
