"""Converted weights, which the processes of a node make once and map into memory.

A process that writes to them gets pages of its own.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from autopeft.model.cache import cached_folder, key_of
from autopeft.model.checkpoint import fetched
from autopeft.model.hub import quiet
from autopeft.model.loaded import Loaded, drawn

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

    folder = cached_folder("backbones", key_of(*_identity(source, files), *what), n_bytes, write)
    return source if folder is None else str(folder)


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
