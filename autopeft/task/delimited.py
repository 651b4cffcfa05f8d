"""Reads tables whose rows are lines of text: CSV, TSV and JSON; no value is rewritten."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import sys
import zlib
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import Dataset

from autopeft.core.errors import shown

_SEPARATORS = (";", "\t", "|")
_QUOTED = re.compile(r'"((?:[^"]|"")*)"')

Lines = Iterator[tuple[int, list[str]]]


def read_csv(path: Path) -> Dataset:
    """A table of texts; the first line names the columns.

    Raises:
        ValueError: which line is wrong and how.
    """
    return _table(_csv_lines(_text(path)), ",")


def read_tsv(path: Path) -> Dataset:
    """A table of texts: each line is a row, and quotation marks are part of the texts.

    Only where every field with quotation marks is quoted whole, as spreadsheets write it, they are
    taken off.

    Raises:
        ValueError: which line is wrong and how.
    """
    lines = [(number, line.split("\t")) for number, line in _lines(_text(path))]
    marked = [field for _, fields in lines for field in fields if '"' in field]
    if all(_QUOTED.fullmatch(field) for field in marked):
        lines = [(number, [_unquoted(field) for field in fields]) for number, fields in lines]
    return _table(iter(lines), "\t")


def read_json(path: Path) -> Dataset:
    """A table of records: one list of them, or one a line.

    Raises:
        ValueError: which line or record is wrong and how.
    """
    text = _text(path)
    if text.lstrip().startswith("["):
        places = enumerate(_decoded(text, 1), 1)
        records = [(f"record {number}", record) for number, record in places]
    else:
        records = [(f"line {number}", _decoded(line, number)) for number, line in _lines(text)]
    for place, record in records:
        if not isinstance(record, dict):
            raise ValueError(f"{place}: expected a record such as {{...}}, got {shown(record)}")
    return _of_records(records)


def _text(path: Path) -> str:
    content = path.read_bytes()
    if path.suffix == ".gz":
        try:
            content = gzip.decompress(content)
        except (EOFError, zlib.error) as error:
            raise ValueError(f"it is cut off or no gzip file: {error}") from None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        byte = content[error.start]
        raise ValueError(f"line {line}: byte 0x{byte:02x} is not UTF-8; save it as UTF-8") from None


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """The lines that are not blank with their numbers; nothing but a line feed ends one."""
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield number, line.removesuffix("\r")


def _csv_lines(text: str) -> Lines:
    """The fields of each row, with the number of its first line."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    longest, line = csv.field_size_limit(sys.maxsize), 1
    try:
        for fields in reader:
            if fields:
                yield line, fields
            line = reader.line_num + 1
    except csv.Error as error:
        reason = (
            "a quotation mark opens and does not close" if "end of data" in str(error) else error
        )
        raise ValueError(f"line {line}: {reason}") from None
    finally:
        csv.field_size_limit(longest)


def _unquoted(field: str) -> str:
    quoted = _QUOTED.fullmatch(field)
    return quoted[1].replace('""', '"') if quoted else field


def _table(lines: Lines, separator: str) -> Dataset:
    """The rows below the names of the columns; columns without a name are left out."""
    _, names = next(lines, (0, []))
    _check_names(names, separator)
    rows = []
    for number, fields in lines:
        if len(fields) != len(names):
            reason = f"{len(fields)} fields, but {len(names)} columns are named"
            raise ValueError(f"line {number}: {reason}{_hint(fields, separator)}")
        rows.append(fields)
    columns = zip(*rows, strict=True) if rows else ([] for _ in names)
    named = {name: list(column) for name, column in zip(names, columns, strict=True) if name}
    return Dataset(pa.table({name: pa.array(c, pa.string()) for name, c in named.items()}))


def _hint(fields: list[str], separator: str) -> str:
    breaks = separator == "\t" and any(f.startswith('"') for f in fields)
    return "; a quoted text with tabs or line breaks needs a CSV file" if breaks else ""


def _check_names(names: list[str], separator: str) -> None:
    if not names:
        raise ValueError("the file is empty")
    twice = next((name for name in names if name and names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"line 1: two columns are called {twice!r}")
    _check_nul(names, "line 1")
    others = (s for s in (",", *_SEPARATORS) if s != separator and s in names[0])
    other = next(others, None) if len(names) == 1 else None
    if other is not None:
        raise ValueError(f"the columns are separated by {other!r}, expected {separator!r}")


def _check_nul(names: Iterable[str], place: str) -> None:
    wrong = next((name for name in names if "\0" in name), None)
    if wrong is not None:
        raise ValueError(f"{place}: the name of a column holds a byte 0: {shown(wrong)}")


def _decoded(text: str, number: int) -> Any:
    """The value of JSON text that begins at a line."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        line = number + error.lineno - 1
        raise ValueError(f"line {line}, column {error.colno}: {error.msg}") from None
    except RecursionError:
        raise ValueError(f"line {number}: its brackets are nested too deeply") from None


def _of_records(records: list[tuple[str, dict[str, Any]]]) -> Dataset:
    names = dict.fromkeys(name for _, record in records for name in record)
    columns = {name: [record.get(name) for _, record in records] for name in names}
    arrays: dict[str, Any] = {}
    for place, record in records:
        _check_nul(record, place)
    for name, values in columns.items():
        if _reason(values):
            first = bisect_left(
                range(len(values)), True, key=lambda i: bool(_reason(values[: i + 1]))
            )
            place, reason = records[first][0], _reason(values[: first + 1])
            raise ValueError(f"{place}: {shown(values[first])} does not do as {name!r}: {reason}")
        arrays[name] = pa.array(values)
    return Dataset(pa.table(arrays))


def _reason(values: list[Any]) -> str:
    """Why values do not make one column; nothing if they do."""
    try:
        pa.array(values)
    except (ValueError, TypeError, OverflowError) as error:
        return str(error)
    return ""
