"""The files that a model is loaded from, checked before anything is."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

from huggingface_hub import try_to_load_from_cache
from safetensors import SafetensorError, safe_open

from autopeft.core.errors import StudyError
from autopeft.model.gguf import as_folder, gguf_file
from autopeft.model.hub import locate

CONFIG, _ADAPTER = "config.json", "adapter_config.json"
_WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
"""What transformers looks for, in its order."""

_POINTER = b"version https://git-lfs"


_trusted: set[str] = set()
"""Sources of models whose own code may run in this process."""


def trust(reference: str) -> None:
    """Lets code that comes with a model run in this process.

    Raises:
        StudyError: see `source_of`.
    """
    _trusted.add(source_of(reference, needs_weights=False))


def is_trusted(source: str) -> bool:
    """Whether code that comes with what `source_of` returned may run."""
    return source in _trusted


def source_of(reference: str, *, needs_weights: bool) -> str:
    """The folder or the id to load a model from, checked as far as it is on this machine.

    Raises:
        StudyError: no such folder or package; a folder without `config.json`, or with an adapter
            beside it, which transformers would attach; with `needs_weights`, weights that are
            missing or incomplete, by the name of their file.
    """
    path = locate(reference, "model")
    file = None if path is None else gguf_file(path)
    if file is not None:
        return str(as_folder(file))
    folder = fetched(reference) if path is None else path
    if folder is not None and (folder / _ADAPTER).is_file():
        raise StudyError(
            f"{str(folder)!r} holds an adapter ({_ADAPTER}), which would be trained on top of; "
            "merge it into its model first, as peft's merge_and_unload does",
            "model",
        )
    if path is None:
        return reference
    if not (path / CONFIG).is_file():
        raise StudyError(f"{str(path)!r} holds no {CONFIG}, so it is no model", "model")
    if needs_weights:
        for file in weight_files(path):
            _check_whole(file)
    return str(path)


def fetched(reference: str) -> Path | None:
    """Where the files of an id of the hub lie on this machine; None before they are fetched."""
    try:
        config = try_to_load_from_cache(reference, CONFIG)
    except ValueError:  # it is no id
        return None
    return Path(config).parent if isinstance(config, str) else None


def weight_files(folder: Path) -> list[Path]:
    """The files of weights that transformers loads from a folder.

    Raises:
        StudyError: there are none, or some are missing.
    """
    stored = next((folder / name for name in _WEIGHTS if (folder / name).is_file()), None)
    if stored is None:
        expected = " or ".join(_WEIGHTS[::2])
        raise StudyError(f"{str(folder)!r} holds no weights ({expected})", "model")
    return [stored] if stored.suffix != ".json" else _shards(stored)


def _shards(index: Path) -> list[Path]:
    """The files that an index of weights names.

    Raises:
        StudyError: it is no index, or one of them is missing.
    """
    try:
        names = set(json.loads(index.read_bytes())["weight_map"].values())
        shards = [index.parent / name for name in sorted(names)]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StudyError(f"{str(index)!r} is no index of weights: {error!r}", "model") from error
    for shard in shards:
        if not shard.is_file():
            raise StudyError(f"{str(shard)!r} is missing, which {index.name} names", "model")
    return shards


def _check_whole(file: Path) -> None:
    """Refuses a file of weights that was not fetched or written to its end."""
    with file.open("rb") as content:
        start = content.read(len(_POINTER))
    if start == _POINTER:
        reason = "is a pointer of Git LFS instead of the weights; fetch them with: git lfs pull"
        raise StudyError(f"{str(file)!r} {reason}", "model")
    try:
        if file.suffix == ".safetensors":
            safe_open(file, framework="pt").__exit__(None, None, None)
        elif start.startswith(b"PK") and not zipfile.is_zipfile(file):
            raise StudyError(f"{str(file)!r} is incomplete", "model")
    except SafetensorError as error:
        raise StudyError(f"{str(file)!r} cannot be read: {error}", "model") from error
