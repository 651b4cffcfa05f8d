"""Data that are given as objects, written where every worker of a study finds them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import Dataset

from autopeft.core.errors import StudyError
from autopeft.study.spec import StudySpec
from autopeft.task.rows import KEY
from autopeft.task.tables import split_of


def on_disk(spec: StudySpec) -> StudySpec:
    """The study with a path for data that it holds as an object.

    A `Dataset`, a frame of pandas, or a mapping of either by split are written into the folder of
    the study, once for the same content.

    Raises:
        StudyError: they are something else, or cannot be written.
    """
    data = spec.task.get("data")
    if data is None or isinstance(data, str | Path):
        return spec
    tables: dict[str, Dataset] = {}
    for name, table in _by_name(data).items():
        tables.setdefault(_split(name), _table(table))
    digest = hashlib.sha256()
    for split, table in sorted(tables.items()):
        digest.update(json.dumps([split, table.column_names]).encode())
        for batch in table.with_format("arrow").iter(1000):
            digest.update(repr(batch.to_pylist()).encode())
    folder = Path(spec.folder).resolve() / f"data-{digest.hexdigest()[:16]}"
    try:
        for split, table in tables.items():
            path = folder / f"{split}.parquet"
            if not path.is_file():
                folder.mkdir(parents=True, exist_ok=True)
                part = path.with_name(f".{path.name}")
                table.to_parquet(part)
                part.replace(path)
    except OSError as error:
        raise StudyError(f"cannot be written to {folder}: {error}", KEY) from error
    return spec.model_copy(update={"task": {**spec.task, "data": str(folder)}})


def _by_name(data: Any) -> Mapping[str, Any]:
    return data if isinstance(data, Mapping) else {"train": data}


def _split(name: str) -> str:
    split = split_of(name)
    if split is None:
        raise StudyError(f"expected train, validation or test, got {name!r}", KEY)
    return split


def _table(data: Any) -> Dataset:
    if isinstance(data, Dataset):
        return data
    if type(data).__module__.partition(".")[0] == "pandas" and hasattr(data, "columns"):
        try:
            return Dataset.from_pandas(data, preserve_index=False)
        except pa.ArrowException as error:
            raise StudyError(f"the frame cannot be used: {error}", KEY) from error
    reason = "expected a path, an id of the hub, a datasets.Dataset or a frame of pandas"
    raise StudyError(f"{reason}, got {type(data).__name__}", KEY)
