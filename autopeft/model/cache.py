"""Folders that the processes of a node make once and share.

They lie in the cache folder and are mapped into memory: the system holds a file once, however many
processes read it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from stat import S_IMODE
from typing import Any

from filelock import FileLock
from safetensors import SafetensorError, safe_open

_SHARE = 0.1
_SIZES = "sizes.json"
_PACKAGES = ("torch", "transformers", "safetensors", "tokenizers")


def cache_folder() -> Path:
    """Where all that is fetched or made lies: `AUTOPEFT_CACHE`, else `~/.cache/autopeft`."""
    return Path(os.environ.get("AUTOPEFT_CACHE") or "~/.cache/autopeft").expanduser()


def cached_folder(kind: str, key: str, n_bytes: int, write: Callable[[Path], None]) -> Path | None:
    """The folder `key` among those of one kind in the cache; None where it cannot be kept.

    One process writes it while others wait. Folders of a kind take up at most a tenth of the
    disk: the least recently used go when another is written, and a larger one is not kept. A
    process that has mapped a folder keeps what it has when that goes. A folder whose files are not
    as long as they were written, or whose tensors cannot be told any more, is made anew.

    Args:
        kind: folder in the cache.
        key: says everything that the content depends on.
        n_bytes: about the size of what is written.
        write: fills an empty folder.
    """
    folder = cache_folder() / kind
    folder_of_key = folder / key
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"):
            if not _is_whole(folder_of_key):
                _remove(folder_of_key)
                if not _has_room(folder, n_bytes):
                    return None
                _write_whole(folder_of_key, write)
            folder_of_key.touch()
            return folder_of_key
    except (OSError, SafetensorError):
        return None


def key_of(*parts: Any) -> str:
    """A name for `parts` and the versions of the packages that work on them."""
    versions = [version(package) for package in _PACKAGES]
    return hashlib.sha256(repr((parts, versions)).encode()).hexdigest()[:32]


def _write_whole(folder: Path, write: Callable[[Path], None]) -> None:
    """Lets `write` fill a folder, or leaves none."""
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".") as unfinished:
        inner = Path(unfinished) / folder.name
        inner.mkdir()
        write(inner)
        (inner / _SIZES).write_text(json.dumps(_sizes(inner)), encoding="utf-8")
        mode = (inner / _SIZES).stat().st_mode
        for file in _files(inner):
            file.chmod(S_IMODE(mode))  # safetensors gives all to the owner
            with file.open("rb") as content:
                os.fsync(content.fileno())
        inner.rename(folder)


def _is_whole(folder: Path) -> bool:
    """Whether a folder is there with all that was written into it."""
    try:
        sizes = json.loads((folder / _SIZES).read_text(encoding="utf-8"))
        for file in folder.rglob("*.safetensors"):
            safe_open(file, framework="pt").__exit__(None, None, None)
    except (OSError, ValueError, SafetensorError):
        return False
    return bool(sizes == _sizes(folder))


def _sizes(folder: Path) -> dict[str, int]:
    files = (file for file in _files(folder) if file.name != _SIZES)
    return {str(file.relative_to(folder)): file.stat().st_size for file in files}


def _files(folder: Path) -> list[Path]:
    return [file for file in folder.rglob("*") if file.is_file()]


def _remove(entry: Path) -> None:
    """Takes a folder away at once, so that no half of it stays."""
    if entry.is_dir():
        entry.rename(gone := entry.with_name(f".{entry.name}"))
        shutil.rmtree(gone, ignore_errors=True)


def _has_room(folder: Path, n_bytes: int) -> bool:
    """Whether `n_bytes` more fit, after what was used least recently has gone for them."""
    for unfinished in folder.glob(".*/"):  # of a process that was killed
        shutil.rmtree(unfinished, ignore_errors=True)
    disk = shutil.disk_usage(folder)
    room = _SHARE * disk.total
    if n_bytes > room:
        return False
    entries = sorted((e for e in folder.iterdir() if e.is_dir()), key=lambda e: e.stat().st_mtime)
    sizes = {entry: sum(f.stat().st_size for f in _files(entry)) for entry in entries}
    for entry in entries:
        if sum(sizes.values()) + n_bytes <= room:
            break
        _remove(entry)
        del sizes[entry]
    return shutil.disk_usage(folder).free > n_bytes
