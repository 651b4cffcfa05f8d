"""Tells whether the process that took a trial still works on it."""

from __future__ import annotations

import os
import platform
import threading
import time
from collections.abc import Mapping
from typing import Any

import optuna
import psutil

INTERVAL = 20.0
"""Seconds between two signs of life."""

PATIENCE = 5 * INTERVAL
"""Seconds without a sign of life after which a process on another machine counts as dead."""

_SIGN = "process:"


class Heart:
    """Signs of life of one process, written into the study between start and stop."""

    def __init__(self, study: optuna.Study) -> None:
        self.study = study
        started = psutil.Process().create_time()
        self.owner = {"host": platform.node(), "pid": os.getpid(), "started": started}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def start(self) -> None:
        """Gives the first sign."""
        self._sign(time.time())
        self._thread.start()

    def stop(self) -> None:
        """Gives the last sign."""
        self._stop.set()
        self._thread.join()
        self._try_to_sign(0.0)

    def is_alone(self) -> bool:
        """Whether no other living process has the study open."""
        signs = {k: s for k, s in self.study.user_attrs.items() if k.startswith(_SIGN)}
        others = [sign for key, sign in signs.items() if key != _key(self.owner)]
        return not any(sign["seen"] and is_alive(self.study, sign) for sign in others)

    def _beat(self) -> None:
        while not self._stop.wait(INTERVAL):
            self._try_to_sign(time.time())

    def _try_to_sign(self, seen: float) -> None:
        """A storage that is busy or away for a moment gets the next sign."""
        try:
            self._sign(seen)
        except Exception:
            return

    def _sign(self, seen: float) -> None:
        self.study.set_user_attr(_key(self.owner), {**self.owner, "seen": seen})


def is_alive(study: optuna.Study, owner: Mapping[str, Any]) -> bool:
    """Whether a process that took a trial still works.

    On this machine the process itself tells; of other machines their signs of life do, as far as
    the clocks agree.
    """
    if owner["host"] == platform.node():
        return _runs_here(owner)
    sign = study.user_attrs.get(_key(owner))
    if sign is None or sign["started"] != owner["started"]:
        return False
    return bool(time.time() - sign["seen"] < PATIENCE)


def _key(owner: Mapping[str, Any]) -> str:
    return f"{_SIGN}{owner['host']}:{owner['pid']}"


def _runs_here(owner: Mapping[str, Any]) -> bool:
    try:
        process = psutil.Process(int(owner["pid"]))
        same = abs(process.create_time() - float(owner["started"])) < 1.0
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
