"""What the processes of a node make once and share, above all converted weights.

It lies in the cache folder and is mapped into memory: the system holds it once, however many
processes read it, and a process that writes to it gets pages of its own.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from safetensors import SafetensorError
from transformers import PreTrainedModel

from autopeft.model.checkpoint import fetched
from autopeft.model.hub import quiet
from autopeft.model.loaded import Loaded, drawn

_SHARE = 0.1
_SIZES = "sizes.json"
_PACKAGES = ("torch", "transformers", "safetensors", "tokenizers")
_NAMES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}


def in_dtype(
    source: str, model: PreTrainedModel, dtype: torch.dtype, load: Callable[[str], Loaded]
) -> str:
    """The folder or the id from which a model is mapped into memory instead of copied.

    That is `source` where it holds safetensors of that dtype, and where nothing can be kept;
    else a folder of the cache, which the first process of a node writes and the others wait for.

    Args:
        source: folder, or id of the hub.
        model: without weights.
        dtype: in which the weights are wanted.
        load: from a folder or id to the model, with what transformers says about its loading.
    """
    files = Path(source) if Path(source).is_dir() else fetched(source)
    if files is not None and not any(f.suffix in (".safetensors", ".bin") for f in files.iterdir()):
        load(source)  # fetches what the hub has
    if files is None or _stored_as(files, dtype):
        return source
    what = [type(model).__name__, model.config.num_labels, dtype]
    n_bytes = sum(p.numel() for p in model.parameters()) * dtype.itemsize

    def write(folder: Path) -> None:
        loaded, info = load(source)
        fresh = drawn(info)  # by each process for itself
        state = {name: t for name, t in loaded.state_dict().items() if name not in fresh}
        with quiet():
            loaded.save_pretrained(folder, state_dict=state, max_shard_size=sys.maxsize)

    folder = kept("backbones", key_of(*_identity(source, files), *what), n_bytes, write)
    return source if folder is None else str(folder)


def cache_folder() -> Path:
    """Where all that is fetched or made lies: `AUTOPEFT_CACHE`, else `~/.cache/autopeft`."""
    return Path(os.environ.get("AUTOPEFT_CACHE") or "~/.cache/autopeft").expanduser()


def kept(kind: str, key: str, n_bytes: int, write: Callable[[Path], None]) -> Path | None:
    """The folder `key` among those of one kind in the cache; None where it cannot be kept.

    One process writes it while others wait. Folders of a kind take up at most a tenth of the
    disk: the least recently used go when another is written, and a larger one is not kept. A
    process that has mapped a folder keeps what it has when that goes. A folder whose files are not
    as long as they were written is made anew.

    Args:
        kind: folder in the cache.
        key: says everything that the content depends on.
        n_bytes: about the size of what is written.
        write: fills an empty folder.
    """
    folder = cache_folder() / kind
    found = folder / key
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"):
            if not _is_whole(found):
                _remove(found)
                if not _has_room(folder, n_bytes):
                    return None
                _write_whole(found, write)
            found.touch()
            return found
    except (OSError, SafetensorError):
        return None


def key_of(*parts: Any) -> str:
    """A name for `parts` and the versions of the packages that work on them."""
    versions = [version(package) for package in _PACKAGES]
    return hashlib.sha256(repr((parts, versions)).encode()).hexdigest()[:32]


def _write_whole(found: Path, write: Callable[[Path], None]) -> None:
    """Lets `write` fill the folder `found`, or leaves none."""
    with tempfile.TemporaryDirectory(dir=found.parent, prefix=".") as unfinished:
        inner = Path(unfinished) / found.name
        inner.mkdir()
        write(inner)
        (inner / _SIZES).write_text(json.dumps(_sizes(inner)), encoding="utf-8")
        for file in inner.iterdir():
            with file.open("rb") as content:
                os.fsync(content.fileno())
        inner.rename(found)


def _is_whole(found: Path) -> bool:
    """Whether a folder is there with all that was written into it."""
    try:
        sizes = json.loads((found / _SIZES).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool(sizes == _sizes(found))


def _sizes(folder: Path) -> dict[str, int]:
    return {file.name: file.stat().st_size for file in folder.iterdir() if file.name != _SIZES}


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
    sizes = {entry: sum(f.stat().st_size for f in entry.iterdir()) for entry in entries}
    for entry in entries:
        if sum(sizes.values()) + n_bytes <= room:
            break
        _remove(entry)
        del sizes[entry]
    return shutil.disk_usage(folder).free > n_bytes


def _identity(source: str, folder: Path) -> list[Any]:
    """What the weights of a source are told by: files, or the commit in the path of a snapshot."""
    if not Path(source).is_dir():
        return [folder]
    files = [f for f in sorted(folder.iterdir()) if f.suffix in (".safetensors", ".bin", ".json")]
    stats = [(file.name, file.stat()) for file in files]
    return [folder.resolve(), *((name, s.st_size, s.st_mtime_ns) for name, s in stats)]


def _stored_as(folder: Path, dtype: torch.dtype) -> bool:
    """Whether all floating numbers in the safetensors of a folder have one dtype."""
    files = list(folder.glob("*.safetensors"))
    kinds = {kind for file in files for kind in _dtypes(file)}
    return bool(files) and {kind for kind in kinds if "F" in kind} == {_NAMES[dtype]}


def _dtypes(file: Path) -> set[str]:
    """Names of the dtypes in a safetensors file, from its header; none where that is broken."""
    with file.open("rb") as content:
        length = int.from_bytes(content.read(8), "little")
        head = content.read(min(length, file.stat().st_size))
    try:
        header = json.loads(head)
    except ValueError:
        return set()
    return {tensor["dtype"] for name, tensor in header.items() if name != "__metadata__"}
