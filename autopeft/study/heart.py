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


class Heart:
    """Signs of life of one process, written into the study while the context is open."""

    def __init__(self, study: optuna.Study) -> None:
        self.study = study
        started = psutil.Process().create_time()
        self.owner = {"host": platform.node(), "pid": os.getpid(), "started": started}
        self._key = f"beat:{platform.node()}:{os.getpid()}:{started:.2f}"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> Heart:
        self.study.set_user_attr(self._key, time.time())
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _beat(self) -> None:
        while not self._stop.wait(INTERVAL):
            self.study.set_user_attr(self._key, time.time())


def is_alive(study: optuna.Study, owner: Mapping[str, Any] | None) -> bool:
    """Whether the owner of a running trial still works.

    On this machine the process itself tells; of other machines their signs of life do.
    """
    if owner is None:
        return False
    if owner["host"] == platform.node():
        return _runs_here(owner)
    key = f"beat:{owner['host']}:{owner['pid']}:{owner['started']:.2f}"
    return bool(time.time() - float(study.user_attrs.get(key, 0.0)) < PATIENCE)


def _runs_here(owner: Mapping[str, Any]) -> bool:
    try:
        process = psutil.Process(int(owner["pid"]))
        same = abs(process.create_time() - float(owner["started"])) < 1.0
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
