"""A PostgreSQL server of its own on loopback."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from pathlib import Path

INSTALLED = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
"""Where Debian has it."""


def tool(name: str) -> str | None:
    """The path of one of its programs; None where there is none."""
    path = os.pathsep.join([*map(str, reversed(INSTALLED)), os.environ["PATH"]])
    return shutil.which(name, path=path)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class PostgreSQL:
    """The server, whose data lie in a folder; it refuses to run as root and so runs as nobody."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.user = "nobody" if os.geteuid() == 0 else None
        self.url = f"postgresql+psycopg2://autopeft@127.0.0.1:{self.port}/postgres"
        if self.user:
            shutil.chown(folder, self.user)
        self._run("initdb", "--auth=trust", "--username=autopeft", "--no-sync")

    def start(self) -> None:
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -k {self.folder} -F"
        self._run("pg_ctl", "start", "-w", "-l", str(self.folder / "log"), "-o", options)

    def stop(self, mode: str = "fast") -> None:
        """Ends it; `immediate` is what a crash is to it."""
        self._run("pg_ctl", "stop", "-w", "-m", mode)

    def _run(self, name: str, *arguments: str) -> None:
        program = tool(name)
        assert program is not None
        subprocess.run(
            [program, "-D", str(self.folder / "data"), *arguments],
            user=self.user,
            cwd=self.folder,
            check=True,
            stdout=subprocess.DEVNULL,
        )
