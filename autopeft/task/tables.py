"""Reads tables of examples, split or not, from the hub, from files and from folders."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset

from autopeft.core.errors import StudyError, unknown
from autopeft.model.hub import locate, quiet, unreachable
from autopeft.task.delimited import read_csv, read_json, read_tsv
from autopeft.task.rows import KEY
from autopeft.task.snippets import SNIPPETS, snippets

SPLITS = ("train", "validation", "test")
_SPLIT_NAMES = (
    ("train", r"train(ing)?"),
    ("validation", r"validation|valid|val|dev|eval"),
    ("test", r"test(ing)?"),
)


def read_tables(reference: str) -> dict[str, Dataset]:
    """The tables that `reference` stands for, by split; a table without a split is `train`.

    Args:
        reference: id of the hub (`owner/name`, or `owner/name:configuration`), file (csv, tsv,
            json, jsonl, also with `.gz`, parquet), folder of such files named by split, folder
            written by `save_to_disk`, or one of `SNIPPETS`, such as `package:movie-snippets`.

    Raises:
        StudyError: there is no such thing, or it cannot be read.
    """
    if reference in SNIPPETS:
        return {"train": snippets(reference)}
    path = locate(reference, KEY)
    if path is None:
        return _from_hub(reference)
    if path.is_file():
        return {"train": _from_file(path)}
    with _reading(path):
        return _from_folder(path)


def filled_tables(reference: str) -> dict[str, Dataset]:
    """Those of `read_tables` that hold examples, `train` among them.

    Raises:
        StudyError: see `read_tables`; or there is nothing to train on.
    """
    tables = {split: table for split, table in read_tables(reference).items() if len(table)}
    if "train" not in tables:
        raise StudyError(f"{reference!r} has no training examples", KEY)
    return tables


def column_of(table: Dataset, target: str, name: str | None, obvious: Sequence[str]) -> str:
    """The column `name`, or the first obvious one that the table has.

    Args:
        table: of examples.
        target: what the column holds, as in `task.target_column`.
        name: that a study file gives, or None.
        obvious: names to look for.

    Raises:
        StudyError: there is none.
    """
    known, key = table.column_names, f"task.{target}_column"
    if name is None:
        name = next((candidate for candidate in obvious if candidate in known), None)
        if name is None:
            raise StudyError(f"no column is called so: name one of {', '.join(known)}", key)
    if name not in known:
        raise StudyError(unknown("column", name, known), key)
    return name


def _from_hub(reference: str) -> dict[str, Dataset]:
    name, _, configuration = reference.partition(":")
    try:
        with quiet():
            tables = datasets.load_dataset(name, configuration or None)
    except ValueError as error:
        raise StudyError(f"{reference!r} cannot be used: {error}", KEY) from error
    except (OSError, datasets.exceptions.DatasetsError) as error:
        raise unreachable(reference, error, KEY) from error
    return _by_split(tables)


def _by_split(tables: Any) -> dict[str, Dataset]:
    """The three splits of a `DatasetDict`, whatever it calls them."""
    if isinstance(tables, Dataset):
        return {"train": tables}
    splits: dict[str, Dataset] = {}
    for name, table in tables.items():
        split = split_of(name)
        if split is not None:
            splits.setdefault(split, table)
    return splits or {"train": next(iter(tables.values()))}


def split_of(name: str) -> str | None:
    """The split that a file or split name speaks of, such as `test` for `test-00000-of-00001`."""
    for split, pattern in _SPLIT_NAMES:
        if re.match(rf"({pattern})(?![a-z])", name.lower()):
            return split
    return None


def _from_folder(path: Path) -> dict[str, Dataset]:
    if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
        return _by_split(datasets.load_from_disk(str(path)))
    files = sorted(file for file in path.rglob("*") if is_table(file))
    if not files:
        raise StudyError(f"{str(path)!r} holds no {_known()} file", KEY)
    named: dict[str, list[Dataset]] = {}
    for file in files:
        split = split_of(file.stem) or ("train" if len(files) == 1 else None)
        if split is not None:
            named.setdefault(split, []).append(_from_file(file))
    if "train" not in named:
        names = ", ".join(file.name for file in files[:5])
        raise StudyError(f"{str(path)!r} holds no file whose name begins with train: {names}", KEY)
    return {split: datasets.concatenate_datasets(parts) for split, parts in named.items()}


def _from_file(path: Path) -> Dataset:
    reader = _READERS.get(_kind(path))
    if reader is None:
        raise StudyError(f"{path.name!r} is no {_known()} file", KEY)
    with _reading(path):
        return reader(path)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (ValueError, TypeError, OSError, NotImplementedError) as error:
        raise StudyError(f"{str(path)!r} cannot be read: {error}", KEY) from error


def _from_parquet(path: Path) -> Dataset:
    table = pq.read_table(path)
    for place, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):  # the categories of pandas
            plain = table.column(place).cast(field.type.value_type)
            table = table.set_column(place, field.name, plain)
    return Dataset(table)


def is_table(path: Path) -> bool:
    """Whether a file is one of examples, by its suffix."""
    return _kind(path) in _READERS


def _kind(path: Path) -> str:
    """The suffix, without that of gzip."""
    return Path(path.name.lower().removesuffix(".gz")).suffix


def _known() -> str:
    return ", ".join(sorted(suffix[1:] for suffix in _READERS))


_READERS: dict[str, Callable[[Path], Dataset]] = {
    ".csv": read_csv,
    ".tsv": read_tsv,
    ".json": read_json,
    ".jsonl": read_json,
    ".parquet": _from_parquet,
}
