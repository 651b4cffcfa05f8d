"""Models with an encoder and a decoder: translation, summaries, any text from another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Literal

import torch
from datasets import Dataset
from pydantic import Field
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from autopeft.core.errors import StudyError, unknown
from autopeft.model.head import HEADS, Head
from autopeft.task.answers import Answers, ends_of, said
from autopeft.task.batches import Cut, Encoded, cut_of
from autopeft.task.data import Data
from autopeft.task.language import LanguageTask
from autopeft.task.rows import Row, read_rows, text_at
from autopeft.task.tables import SPLITS, filled_tables
from autopeft.task.tokens import Examples, tensors_of

PAIRS = (
    ("source", "target"),
    ("document", "summary"),
    ("article", "highlights"),
    ("text", "summary"),
    ("prompt", "completion"),
    ("input", "output"),
    ("question", "answer"),
)
"""Columns that hold a text and what is to become of it."""


class Seq2SeqLM(LanguageTask):
    """A text from another.

    Attributes:
        source_column: of what the encoder reads; a dot leads into a mapping, as in
            `translation.en`. None, as for the target, stands for the obvious one.
        target_column: of what the decoder writes.
        source_prefix: is put before every source, as T5 wants it.
        max_target_length: tokens after which a target is cut.
    """

    type: Literal["seq2seq-lm"] = "seq2seq-lm"
    source_column: str | None = None
    target_column: str | None = None
    source_prefix: str = ""
    max_target_length: int = Field(default=128, ge=1, le=2**20)

    @property
    def head(self) -> Head:
        return HEADS["seq2seq-lm"]

    @property
    def longest(self) -> int:
        return max(self.max_length, self.max_target_length)

    @property
    def longest_answer(self) -> int:
        return self.max_target_length

    def load(self) -> Data:
        """The texts, sources in the column `text`, with the prefix, and targets in `label`."""
        tables = {s: self._pairs(table, s) for s, table in filled_tables(self.data).items()}
        return Data(**self.cut(tables), label_names=())

    def _pairs(self, table: Dataset, split: str) -> Dataset:
        source, target = self._columns(table.column_names)

        def read(row: Row) -> dict[str, str]:
            return {
                "text": self.source_prefix + text_at(row, source),
                "label": text_at(row, target),
            }

        return Dataset.from_list(read_rows(table, split, read))

    def _columns(self, known: Sequence[str]) -> tuple[str, str]:
        """Where the two texts are."""
        given = {"source_column": self.source_column, "target_column": self.target_column}
        for key, name in given.items():
            if name is not None and not {name, name.partition(".")[0]} & {*known}:
                raise StudyError(unknown("column", name, known), f"task.{key}")
        for source, target in PAIRS:
            source, target = self.source_column or source, self.target_column or target
            if {source, target} <= {*known, *given.values()}:
                return source, target
        reason = "no columns are known to hold a text and what becomes of it: name them as"
        named = f"{' and '.join(given)}; there are {', '.join(known)}"
        raise StudyError(f"{reason} {named}", "task")

    def encode(self, data: Data, reader: PreTrainedTokenizerBase) -> Examples:
        return Examples((), {s: self._encoded(s, getattr(data, s), reader) for s in SPLITS})

    def _encoded(self, split: str, table: Dataset, tokenizer: PreTrainedTokenizerBase) -> Encoded:
        limit = min(self.max_length, tokenizer.model_max_length)
        longest = self.max_target_length
        sources, cut = _read(tokenizer, {"text": table["text"][:]}, limit)
        targets, cut_wanted = _read(tokenizer, {"text_target": table["label"][:]}, longest)
        answers = None
        if self.predict_with_generate and split != "train":
            listed = [ids.tolist() for ids in targets]
            most = self.max_new_tokens or max(map(len, listed))
            ends = ends_of(listed, tokenizer)
            answers = Answers(sources, said(listed, tokenizer), ends, most, self.own_metrics)
        return Encoded(
            name=split,
            columns={"input_ids": sources, "attention_mask": [torch.ones_like(s) for s in sources]},
            padding={"input_ids": tokenizer.pad_token_id, "attention_mask": 0},
            lengths=torch.tensor([max(map(len, p)) for p in zip(sources, targets, strict=True)]),
            labels=targets,
            cut=cut + cut_wanted,
            answers=answers,
        )


def _read(
    tokenizer: PreTrainedTokenizerBase, texts: Mapping[str, Sequence[str]], limit: int
) -> tuple[list[Tensor], Cut]:
    """The token ids of a column, at most `limit` a row, computed once on a node."""

    def made() -> dict[str, Tensor]:
        ids = tokenizer(**texts, truncation=True, max_length=limit)["input_ids"]
        flat = torch.tensor([*chain.from_iterable(ids)], dtype=torch.int64)
        return {"ids": flat, **vars(cut_of(tokenizer, ids, limit, texts))}

    tensors = tensors_of(made, tokenizer, [*texts.values()], *texts, limit)
    cut = Cut(tensors["whole"], tensors["lost"])
    return list(tensors["ids"].split((cut.whole - cut.lost).tolist())), cut
