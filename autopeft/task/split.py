"""Cuts examples into splits by class, without a text on both sides, the same everywhere."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Hashable
from typing import Any

from datasets import Dataset

from autopeft.core.errors import StudyError
from autopeft.task.rows import KEY

Stratum = Callable[[Any], Hashable] | None
"""Of a label: what a split has in the proportions of the whole; None where there are no labels."""


def _itself(target: Any) -> Hashable:
    return target


def complete(
    tables: dict[str, Dataset], fraction: float, stratum: Stratum = _itself
) -> dict[str, Dataset]:
    """All three splits; those that are missing are cut from `train`.

    Args:
        tables: by split, with the columns `text`, perhaps `text_pair`, perhaps `group`, `label`.
        fraction: of the training rows that each missing split gets, at least one row a stratum.
        stratum: of a label, of which the training split keeps two at least.

    Raises:
        StudyError: too few rows are left to train on.
    """
    missing = [split for split in ("test", "validation") if split not in tables]
    table = tables["train"]
    n_rows = max(round(fraction * len(table)), len(set(_strata(table, stratum))))
    order, texts = stratified_order(table, stratum), _same(table)
    splits, start = dict(tables), 0
    for split in missing:
        end = min(start + n_rows, len(order))
        while end < len(order) and texts[order[end]] == texts[order[end - 1]]:
            end += 1
        splits[split], start = table.select(order[start:end]), end
    kept = table.select(order[start:])
    if len(kept) < 2 or (stratum and len(set(map(str, kept["label"]))) < 2):
        reason = f"{len(table)} training rows are too few to cut {' and '.join(missing)} from them"
        raise StudyError(reason, KEY)
    if missing:
        splits["train"] = kept
    return splits


def limited(table: Dataset, limit: int | None, stratum: Stratum = _itself) -> Dataset:
    """At most `limit` rows, in the proportions of the strata; smaller limits are nested."""
    if limit is None or len(table) <= limit:
        return table
    return table.select(stratified_order(table, stratum)[:limit])


def stratified_order(table: Dataset, stratum: Stratum = _itself) -> list[int]:
    """All rows in an order of which every beginning has the strata in proportion.

    Rows of equal text, or of one group, follow each other. The order hangs on the texts or groups
    alone, not on the order of the rows.
    """
    texts, labels = _same(table), _strata(table, stratum)
    first: dict[tuple[str, ...], Hashable] = {}
    for text, label in zip(texts, labels, strict=True):
        first.setdefault(text, label)
    shuffled = sorted(first, key=_hash)
    sizes, seen = Counter(first.values()), Counter[Hashable]()
    place: dict[tuple[str, ...], tuple[float, int]] = {}
    for position, text in enumerate(shuffled):
        label = first[text]
        place[text] = ((seen[label] + 0.5) / sizes[label], position)
        seen[label] += 1
    return sorted(range(len(texts)), key=lambda row: place[texts[row]])


def _strata(table: Dataset, stratum: Stratum) -> list[Hashable]:
    """The stratum of each row; one of all rows without labels."""
    return [0] * len(table) if stratum is None else list(map(stratum, table["label"][:]))


def texts_of(table: Dataset) -> list[list[str]]:
    """The column of the texts, and that of their pairs if there are any."""
    return [table[name][:] for name in ("text", "text_pair") if name in table.column_names]


def _same(table: Dataset) -> list[tuple[str, ...]]:
    """What two rows of one side share: the group, else the text or both texts of a pair."""
    if "group" in table.column_names:
        return [(group,) for group in table["group"][:]]
    return [tuple(text.strip() for text in row) for row in zip(*texts_of(table), strict=True)]


def _hash(text: tuple[str, ...]) -> bytes:
    return hashlib.blake2b("\0".join(text).encode(errors="replace"), digest_size=8).digest()
