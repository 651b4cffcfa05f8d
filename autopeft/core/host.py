"""The machine, or the container that this process runs in: its memory, its cores, their use."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil

_MOUNT = Path("/sys/fs/cgroup")
_LIMITS = ("memory.max", "memory.limit_in_bytes")
_EVENTS = ("memory.events", "memory.oom_control")


def memory() -> int:
    """Bytes that processes here may take in all."""
    limits = (_text(folder / name).strip() for folder in _groups() for name in _LIMITS)
    return min([psutil.virtual_memory().total, *(int(text) for text in limits if text.isdigit())])


def cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def use() -> str:
    """How busy the cores were since the last call, what memory is taken, and the same of GPUs."""
    taken = psutil.virtual_memory().used / 1000**3
    told = f"cores {psutil.cpu_percent():.0f}%, memory {taken:.0f} of {memory() / 1000**3:.0f} GB"
    return "; ".join([told, *_gpus()])


def _gpus() -> Iterator[str]:
    """The use of each GPU, as NVIDIA's own tool tells it where there is one."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return
    query = "--query-gpu=index,utilization.gpu,memory.used,memory.total"
    try:
        told = subprocess.run(
            [tool, query, "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
            timeout=2,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return
    for line in told.stdout.splitlines():
        index, busy, used, total = (part.strip() for part in line.split(","))
        if not (used.isdigit() and total.isdigit()):  # [N/A] where memory is shared
            continue
        taken, whole = (round(int(mebibytes) * 2**20 / 1000**3) for mebibytes in (used, total))
        yield f"GPU {index} {busy}%, {taken} of {whole} GB"


def kills() -> int:
    """How many processes here the kernel has killed for want of memory."""
    files = [folder / name for folder in _groups() for name in _EVENTS]
    for file in (*files, Path("/proc/vmstat")):
        for line in _text(file).splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0


def _groups() -> Iterator[Path]:
    """The folders of the control groups that bound the memory of this process."""
    for line in _text(Path("/proc/self/cgroup")).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers in ("", "memory"):
            mount = _MOUNT / controllers
            inner = mount / path.strip("/")
            yield inner if inner.is_dir() else mount


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""
