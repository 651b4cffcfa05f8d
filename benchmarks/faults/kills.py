"""What becomes of a small study whose processes and server are killed again and again."""

from __future__ import annotations

import random
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.faults.postgresql import PostgreSQL
from benchmarks.faults.small import (
    AT_WORK,
    ENDED,
    N_TRIALS,
    Outcome,
    SmallStudy,
    family,
    is_at_work,
    outcome,
    progress,
    within,
)
from benchmarks.rows import Row

LATEST = 6.0
"""Seconds between the start of a process, or the last fault that it survived, and a fault."""

PATIENCE = 180.0
"""Seconds without an end or any progress, after which a run is stuck."""

OF_RAY = {"worker": "ray::", "raylet": "raylet/raylet", "control store": "gcs_server"}
"""What the command lines of Ray's processes hold."""

SIGNALS = {"interrupt": signal.SIGINT, "terminate": signal.SIGTERM}

FAULTS = {
    "inline": ("driver", *SIGNALS),
    "ray": ("driver", *SIGNALS, "everything", *OF_RAY),
}


@dataclass(frozen=True)
class Disturbed:
    """One study.

    Attributes:
        engine: that runs it.
        storage: `sqlite` or `postgresql`, whose server crashes, too.
        stopper: of the study.
        n_faults: after so many it runs undisturbed.
        seed: of when and what is killed.
    """

    engine: str
    storage: str
    stopper: str
    n_faults: int
    seed: int


def disturbed(order: Disturbed) -> Row:
    """The faults of a study by kind, what they cost, and whether its end is that of another."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(_server()) if order.storage == "postgresql" else None
        url = "" if server is None else server.url
        study = SmallStudy(folder, order.engine, url, order.stopper)
        rampage = Rampage(study, server, random.Random(order.seed))
        rampage.run(order.n_faults)
        row = {
            "injected": dict(rampage.injected),
            "lost": rampage.lost,
            "repeated": _repeated(study),
            "stuck": rampage.stuck,
            "left_behind": rampage.left_behind,
            "longest_recovery": round(max(rampage.recoveries, default=0.0), 1),
            "trials": len(study.ended()),
        }
        return {**row, **({"same_end": _ends_alike(study)} if order.engine == "inline" else {})}


@contextmanager
def _server() -> Iterator[PostgreSQL]:
    with tempfile.TemporaryDirectory() as folder:
        server = PostgreSQL(Path(folder))
        server.start()
        yield server
        server.stop()


class Rampage:
    """Breaks a study and counts what that costs.

    Args:
        study: that nothing runs.
        server: of its record, where there is one.
        rng: of when and what is killed.
    """

    def __init__(self, study: SmallStudy, server: PostgreSQL | None, rng: random.Random) -> None:
        self._study, self._server, self._rng = study, server, rng
        self._kinds = FAULTS[study.engine] + (("database",) if server else ())
        self.injected: Counter[str] = Counter()
        self.lost = self.stuck = self.left_behind = 0
        self.recoveries: list[float] = []

    def run(self, n_faults: int) -> None:
        """So many faults, or as many as there is time for; then the study comes to its end."""
        self._process = self._study.start()
        known: dict[int, Outcome] = {}
        while self.injected.total() < n_faults:
            if within(self._rng.uniform(0.0, LATEST), self._has_ended):
                break
            known |= self._study.ended()
            self._break()
            self.lost += _missing(known, self._study.ended())
        self._finish()
        self.lost += _missing(known, self._study.ended())
        self.lost += max(0, N_TRIALS - _n_searched(self._study))

    def _break(self) -> None:
        """One fault, until the study gets on again."""
        self._before, began = progress(self._study.trials()), time.monotonic()
        relatives = family(self._process)
        self.injected[self._inject(self._rng.choice(self._kinds), relatives)] += 1
        if not within(PATIENCE, self._has_moved):
            self.stuck += 1
            self._process.kill()
        if self._has_ended():
            self._clear(relatives)
            self._process = self._study.start()
        if within(PATIENCE, self._has_moved):
            self.recoveries.append(time.monotonic() - began)
        else:
            self.stuck += 1

    def _inject(self, kind: str, relatives: list[psutil.Process]) -> str:
        """Does it; what was done, for a process of Ray may not be there yet."""
        if kind == "database" and self._server is not None:
            self._server.stop("immediate")
            time.sleep(self._rng.uniform(0.0, 10.0))
            self._server.start()
            return kind
        if kind in SIGNALS:
            self._process.send_signal(SIGNALS[kind])
            return kind
        if kind in OF_RAY:
            victims = [p for p in relatives if OF_RAY[kind] in _command(p) and not _is_agent(p)]
            if victims:
                _kill([self._rng.choice(victims)])
                return kind
        self._process.kill()
        _kill(relatives if kind == "everything" else [])
        return "everything" if kind == "everything" else "driver"

    def _clear(self, relatives: list[psutil.Process]) -> None:
        """Waits until what a run has started is gone; Ray's agents take minutes to notice."""
        ours = [process for process in relatives if not _is_agent(process)]
        if not within(60.0, lambda: not any(map(is_at_work, ours))):
            self.left_behind += sum(map(is_at_work, ours))
        _kill(relatives)

    def _finish(self) -> None:
        """Lets the study end; another process finds nothing left to do."""
        for process in (self._process, self._study.start()):
            try:
                code = process.wait(5 * PATIENCE)
            except subprocess.TimeoutExpired:
                code = -1
                process.kill()
        self.stuck += (code != 0) + sum(t.state in AT_WORK for t in self._study.trials())

    def _has_ended(self) -> bool:
        return self._process.poll() is not None

    def _has_moved(self) -> bool:
        """Whether a run has ended or got on."""
        return self._has_ended() or progress(self._study.trials()) > self._before


def _missing(known: dict[int, Outcome], now: dict[int, Outcome]) -> int:
    """How many ended trials are gone or another."""
    return sum(now.get(number) != before for number, before in known.items())


def _n_searched(study: SmallStudy) -> int:
    return sum(t.state in ENDED and t.repeat_of is None for t in study.trials())


def _repeated(study: SmallStudy) -> int:
    """How many trainings that had ended were done again."""
    ended = [t for t in study.trials() if t.state in ("complete", "stopped")]
    searched = [t.config.key for t in ended if t.repeat_of is None]
    return len(searched) - len(set(searched))


def _ends_alike(study: SmallStudy) -> bool:
    """Whether a run that nobody disturbs ends the same."""
    with tempfile.TemporaryDirectory() as folder:
        other = SmallStudy(Path(folder), study.engine, "", study.stopper)
        assert other.start().wait() == 0
        return sorted(_ends(study)) == sorted(_ends(other))


def _ends(study: SmallStudy) -> list[str]:
    return [repr(outcome(t)) for t in study.trials() if t.state in ENDED]


def _kill(processes: list[psutil.Process]) -> None:
    for process in processes:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue


def _is_agent(process: psutil.Process) -> bool:
    return "Agent" in _command(process)


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
