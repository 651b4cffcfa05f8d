"""A tag for each word: entities, parts of speech."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from datasets import ClassLabel, Dataset
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from autopeft.core.errors import StudyError, shown
from autopeft.model.head import HEADS, IGNORED, Head
from autopeft.task.batches import Encoded, cut_of
from autopeft.task.data import Data, check_used
from autopeft.task.labels import in_order, name_of
from autopeft.task.rows import Row, read_rows
from autopeft.task.tables import SPLITS, column_of, filled_tables
from autopeft.task.task import Goal, Judged, Metric, Task, token_accuracy
from autopeft.task.tokens import Examples

WORD_COLUMNS = ("tokens", "words")
TAG_COLUMNS = ("ner_tags", "tags", "labels", "pos_tags", "label")

Entity = tuple[int, str, int, int]
"""Row, kind, first word, word after the last."""


@dataclass(frozen=True)
class Tagged:
    """The words of a row and as many tags."""

    words: Sequence[str]
    tags: Sequence[str]


class TokenClassification(Task):
    """A tag for each word of a text; only its first piece is judged, where a word has several.

    Attributes:
        words_column: a list of words; None, like the other column, stands for the obvious one.
        tags_column: a list with a tag for each of them.
    """

    type: Literal["token-classification"] = "token-classification"
    words_column: str | None = None
    tags_column: str | None = None

    @property
    def head(self) -> Head:
        return HEADS["token-classification"]

    @property
    def metrics(self) -> Mapping[str, Metric]:
        return {"accuracy": Metric("accuracy", "maximize", token_accuracy)}

    @property
    def goals(self) -> dict[str, Goal]:
        return {**super().goals, "f1": "maximize", "precision": "maximize", "recall": "maximize"}

    def measure(self, names: Sequence[str], judged: Judged) -> dict[str, float]:
        """With `f1`, `precision` and `recall` of entities, which are right as a whole or not."""
        true, said = (set(_all_entities(names, rows)) for rows in (judged.wanted, judged.given))
        right = len(true & said)
        scores = {
            "precision": right / max(1, len(said)),
            "recall": right / max(1, len(true)),
            "f1": 2 * right / max(1, len(true) + len(said)),
        }
        return {**super().measure(names, judged), **scores}

    def load(self) -> Data:
        """The words as JSON in the column `text`, the numbers of their tags in `label`."""
        tables = filled_tables(self.data)
        words = column_of(tables["train"], "words", self.words_column, WORD_COLUMNS)
        tags = column_of(tables["train"], "tags", self.tags_column, TAG_COLUMNS)
        kind = getattr(tables["train"].features[tags], "feature", None)
        known = kind.names if isinstance(kind, ClassLabel) else None
        read = partial(_tagged, words=words, tags=tags, known=known)
        rows = {split: read_rows(table, split, read) for split, table in tables.items()}
        used = {tag for of_split in rows.values() for row in of_split for tag in row.tags}
        names = tuple(known) if known else in_order(used)
        places = {name: place for place, name in enumerate(names)}
        numbered = {
            split: Dataset.from_dict(
                {
                    "text": [json.dumps(row.words, ensure_ascii=False) for row in of_split],
                    "label": [[places[tag] for tag in row.tags] for row in of_split],
                }
            )
            for split, of_split in rows.items()
        }
        splits = self.cut(numbered)
        check_used({s: _used(names, table) for s, table in splits.items()}, "task.tags_column")
        return Data(**splits, label_names=names)

    def encode(self, data: Data, reader: PreTrainedTokenizerBase) -> Examples:
        if not reader.is_fast:
            reason = "its tokenizer does not tell which word a token is of; a fast one is needed"
            raise StudyError(reason, "model")
        limit = min(self.max_length, reader.model_max_length)
        splits = {s: _encoded(s, getattr(data, s), reader, limit) for s in SPLITS}
        return Examples(data.label_names, splits)


def entities(row: int, tags: Sequence[str]) -> Iterator[Entity]:
    """The entities of tags such as `B-PER`, `I-PER`, `O`; a tag without a prefix is one word.

    An `I-` that follows no entity of its kind begins one, as in the evaluation of CoNLL.
    """
    start, kind = 0, ""
    for place, tag in enumerate([*tags, "O"]):
        prefix, dash, named = tag.partition("-")
        goes_on = bool(dash) and prefix in ("I", "E") and named == kind
        if kind and not goes_on:
            yield row, kind, start, place
        if not goes_on:
            start, kind = place, "" if tag == "O" else (named if dash else tag)
        if prefix in ("E", "S") and dash:
            yield row, kind, start, place + 1
            kind = ""


def _tagged(row: Row, words: str, tags: str, known: Sequence[str] | None) -> Tagged:
    given, marks = row[words], row[tags]
    if not given or not isinstance(given, list) or not all(isinstance(w, str) and w for w in given):
        raise ValueError(f"{words} must be a list of words, got {shown(given)}")
    if not isinstance(marks, list) or len(marks) != len(given):
        raise ValueError(f"{tags} must hold {len(given)} tags, got {shown(marks)}")
    return Tagged(given, [known[mark] if known else name_of(mark) for mark in marks])


def _all_entities(names: Sequence[str], rows: Sequence[Sequence[int]]) -> Iterator[Entity]:
    for number, row in enumerate(rows):
        yield from entities(number, [names[place] for place in row])


def _used(names: Sequence[str], table: Dataset) -> list[str]:
    return [names[place] for place in sorted({i for row in table["label"] for i in row})]


def _encoded(split: str, table: Dataset, tokenizer: PreTrainedTokenizerBase, limit: int) -> Encoded:
    words = [json.loads(text) for text in table["text"]]
    encoding = tokenizer(words, is_split_into_words=True, truncation=True, max_length=limit)
    columns = {key: [torch.tensor(row) for row in rows] for key, rows in encoding.items()}
    padding = dict.fromkeys(columns, 0)
    padding["input_ids"] = tokenizer.pad_token_id
    padding["token_type_ids"] = tokenizer.pad_token_type_id
    lengths = torch.tensor([len(row) for row in columns["input_ids"]])
    targets = [_targets(encoding.word_ids(n), tags) for n, tags in enumerate(table["label"])]
    texts = {"text": words}
    cut = cut_of(tokenizer, encoding["input_ids"], limit, texts, is_split_into_words=True)
    return Encoded(split, columns, padding, lengths, targets, cut)


def _targets(words: Sequence[int | None], tags: Sequence[int]) -> Tensor:
    """The tag of each token that is the first of its word, (tokens,)."""
    before = [None, *words[:-1]]
    pairs = zip(before, words, strict=True)
    return torch.tensor([IGNORED if w is None or w == b else tags[w] for b, w in pairs])
