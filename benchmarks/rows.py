"""Work that is kept as lines of a file, so that it goes on where it stopped."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar


class _Dataclass(Protocol):
    __dataclass_fields__: ClassVar[dict[str, Any]]


Order = TypeVar("Order", bound=_Dataclass)
Row = dict[str, Any]


def rows_of(
    orders: Sequence[Order], carry_out: Callable[[Order], Row], path: Path, workers: int
) -> list[Row]:
    """A row for every order, its fields included; those that `path` lacks are carried out.

    Args:
        orders: one or more of a kind, hashable.
        carry_out: can be sent to another process.
        path: of the file, which is made.
        workers: processes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = _read(path, type(orders[0]))
    missing = [order for order in orders if order not in rows]
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"))
    try:
        running = {pool.submit(carry_out, order): order for order in missing}
        with path.open("a", encoding="utf-8") as file:
            for n, done in enumerate(as_completed(running), 1):
                order = running[done]
                rows[order] = {**asdict(order), **done.result()}
                file.write(json.dumps(rows[order], separators=(",", ":")) + "\n")
                file.flush()
                print(f"{n} of {len(missing)}: {order}", flush=True)
    finally:
        pool.shutdown(cancel_futures=True)
    return [rows[order] for order in orders]


def _read(path: Path, kind: type[Order]) -> dict[Order, Row]:
    """The rows by their orders."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    rows = [json.loads(line) for line in lines]
    return {kind(**{field.name: row[field.name] for field in fields(kind)}): row for row in rows}
