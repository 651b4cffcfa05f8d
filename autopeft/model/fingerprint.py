"""By what a model is known again, whatever its folder is called."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from autopeft.model.checkpoint import CONFIG, fetched, weight_files
from autopeft.model.gguf import gguf_file
from autopeft.model.hub import locate

WHOLE = 2**28
"""Bytes up to which a file is read whole."""

N_BLOCKS, BLOCK = 64, 2**20
"""Of a larger one so many blocks are read, of so many bytes, the first and the last among them."""

_TOKENIZER = ("tokenizer*", "vocab*", "merges.txt", "*.model", "*_tokens*.json")


def fingerprint(reference: str) -> dict[str, str]:
    """Of a local model digests of its configuration, weights, tokenizer and code.

    Of one on the hub the commit.

    Args:
        reference: hub id, `package:NAME/FOLDER` or folder.

    Raises:
        StudyError: no such folder or package, or no weights in it.
    """
    folder = locate(reference, "model")
    if folder is None:
        snapshot = fetched(reference)
        return {} if snapshot is None else {"commit": snapshot.name}
    file = gguf_file(folder)
    if file is not None:
        return {"weights": _digest([file])}
    tokenizer = {path for name in _TOKENIZER for path in folder.glob(name) if path.is_file()}
    code = list(folder.glob("*.py"))
    return {
        **({"code": _digest(code)} if code else {}),
        "config": _digest([folder / CONFIG]),
        "weights": _digest(weight_files(folder)),
        "tokenizer": _digest(tokenizer),
    }


def _digest(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(f"{file.name} {file.stat().st_size} ".encode())
        digest.update(_content(file))
    return digest.hexdigest()[:16]


def _content(file: Path) -> bytes:
    """The sha256 of a file, or of blocks throughout a large one."""
    size, digest = file.stat().st_size, hashlib.sha256()
    spread = [(size - BLOCK) * index // (N_BLOCKS - 1) for index in range(N_BLOCKS)]
    with file.open("rb") as stream:
        for start in range(0, size, BLOCK) if size <= WHOLE else spread:
            stream.seek(start)
            digest.update(stream.read(BLOCK))
    return digest.digest()
