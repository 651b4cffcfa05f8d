"""Tells whether the process that took a trial still works on it."""

from __future__ import annotations

import math
import os
import platform
import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import psutil

from autopeft.core import host

INTERVAL = 20.0
"""Seconds between two signs of life."""

PATIENCE = 6 * INTERVAL
"""Seconds without a new sign of life after which a process that runs elsewhere counts as dead."""

_SIGN = "process:"

Owner = Mapping[str, Any]


@dataclass
class _Pulse:
    """What this process has seen of another: its last sign, since when, and whether it changed."""

    beat: int
    since: float
    changed: bool = False


class Heart:
    """Signs of life of one process, written into the study between start and stop.

    Of a process that shares this one's numbering of processes (boot of the machine, namespace)
    the machine tells whether it lives. Others number their signs: one whose number stays the
    same while this process looks on for `PATIENCE` is dead. Clocks of two machines are never
    compared.
    """

    def __init__(self, study: optuna.Study) -> None:
        self.study = study
        pid = os.getpid()
        self.id = uuid.uuid4().hex
        process = {"pid": pid, "started": _start(pid), "id": self.id, "kills": host.kills()}
        self.owner: Owner = {**_numbering(), **process}
        self._pulses: dict[str, _Pulse] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def start(self) -> None:
        """Gives the first sign."""
        self._sign(1)
        self._thread.start()

    def stop(self) -> None:
        """Gives the last sign."""
        self._stop.set()
        self._thread.join()
        self._try_to_sign(0)

    def is_alone(self) -> bool:
        """Whether no other living process has the study open."""
        signs = (sign for key, sign in self.study.user_attrs.items() if key.startswith(_SIGN))
        return not any(s["id"] != self.id and self.is_alive(s) for s in signs if "id" in s)

    def is_alive(self, owner: Owner) -> bool:
        """Whether a process that took a trial still works, as far as is known by now."""
        beat = self._last_beat(owner)
        if not beat:
            return False
        if _is_here(owner):
            return _start(owner["pid"]) == owner["started"]
        pulse = self._pulses.setdefault(owner["id"], _Pulse(beat, time.monotonic()))
        if pulse.beat != beat:
            pulse.beat, pulse.since, pulse.changed = beat, time.monotonic(), True
        return time.monotonic() - pulse.since < PATIENCE

    def is_in_doubt(self, owner: Owner) -> bool:
        """Whether a process counts as alive only because it has not been watched for long."""
        pulse = self._pulses.get(owner.get("id", ""))
        return self.is_alive(owner) and pulse is not None and not pulse.changed

    def _last_beat(self, owner: Owner) -> int:
        """The number of the last sign of a process; 0 where it has said that it stops, or never."""
        sign = self.study.user_attrs.get(_SIGN + owner.get("id", ""), {})
        return int(sign.get("beat", 0))

    def _beat(self) -> None:
        beat = 1
        while not self._stop.wait(INTERVAL):
            beat += 1
            self._try_to_sign(beat)

    def _try_to_sign(self, beat: int) -> None:
        """A storage that is busy or away for a moment gets the next sign."""
        try:
            self._sign(beat)
        except Exception:
            return

    def _sign(self, beat: int) -> None:
        self.study.set_user_attr(_SIGN + self.id, {**self.owner, "beat": beat})


def _numbering() -> dict[str, str]:
    """Where process numbers mean what they mean here."""
    files = {"boot": "/proc/sys/kernel/random/boot_id", "namespace": "/proc/self/ns/pid"}
    boot, namespace = (Path(file) for file in files.values())
    return {
        "host": platform.node(),
        "boot": boot.read_text().strip() if boot.exists() else "",
        "namespace": str(namespace.readlink()) if namespace.is_symlink() else "",
    }


def _is_here(owner: Owner) -> bool:
    return all(owner.get(key) == value for key, value in _numbering().items())


def has_kernel_killed(owner: Owner) -> bool:
    """Whether, since a process of this machine began, the kernel has killed some for memory."""
    return _is_here(owner) and host.kills() > owner.get("kills", math.inf)


def _start(pid: int) -> float | None:
    """When a process that runs was started; on Linux in clock ticks since the boot.

    None where there is none, or only its exit code is left.
    """
    stat = Path(f"/proc/{pid}/stat")
    try:
        if not Path("/proc/self/stat").exists():
            return psutil.Process(pid).create_time()
        fields = stat.read_text().rpartition(")")[2].split()  # the name may hold anything
    except (OSError, psutil.NoSuchProcess):
        return None
    state, ticks = fields[0], float(fields[19])
    return None if state in "ZX" else ticks
