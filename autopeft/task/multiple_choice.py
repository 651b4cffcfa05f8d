"""One of several answers to a question, each read together with it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from string import ascii_uppercase
from typing import Any, Literal

import torch
from datasets import Dataset
from pydantic import Field
from sklearn.metrics import accuracy_score
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase

from autopeft.core.errors import StudyError, shown, unknown
from autopeft.model.head import Choices, Head
from autopeft.task.batches import Cut, Encoded, cut_of
from autopeft.task.data import Data
from autopeft.task.labels import missing
from autopeft.task.rows import Row, read_rows, text_at
from autopeft.task.tables import SPLITS, column_of, filled_tables
from autopeft.task.task import Metric, Task
from autopeft.task.tokens import Examples

QUESTION_COLUMNS = ("question", "sent1", "premise", "context", "text", "goal")
CHOICES_COLUMNS = ("choices", "options", "endings", "answers")
ANSWER_COLUMNS = ("label", "answer", "answerKey", "answer_index", "gold", "target")
_NUMBERED = re.compile(r"(ending|choice|option|sol|answer)_?([0-9]|[a-eA-E])|([A-E])")


class MultipleChoice(Task):
    """Which of several answers is right.

    Attributes:
        n_choices: of every question.
        question_column: None, like the other columns, stands for the obvious one.
        choices_column: a column of lists of texts, or several columns with a text each.
        label_column: the right one: its place from 0 on, its name, such as `B`, or its text.
    """

    type: Literal["multiple-choice"] = "multiple-choice"
    n_choices: int = Field(default=4, ge=2, le=100)
    question_column: str | None = None
    choices_column: str | list[str] | None = None
    label_column: str | None = None

    @property
    def head(self) -> Head:
        criterion = Choices(self.n_choices)
        return Head(self.type, "AutoModelForMultipleChoice", criterion, n_labels=None)

    @property
    def metrics(self) -> Mapping[str, Metric]:
        return {"accuracy": Metric("accuracy", "maximize", accuracy_score)}

    def load(self) -> Data:
        """The questions in the column `text`, what to choose from in `choices`."""
        tables = {
            split: self._read(table, split)
            for split, table in filled_tables(self.data).items()
            if split == "train" or not self._is_hidden(table)
        }
        return Data(**self.cut(tables), label_names=())

    def _is_hidden(self, table: Dataset) -> bool:
        """Whether a split comes without answers, as the test splits of benchmarks do."""
        answer = column_of(table, "label", self.label_column, ANSWER_COLUMNS)
        return all(missing(value) or value in ("", -1, "-1") for value in table[answer][:])

    def _read(self, table: Dataset, split: str) -> Dataset:
        question = column_of(table, "question", self.question_column, QUESTION_COLUMNS)
        answer = column_of(table, "label", self.label_column, ANSWER_COLUMNS)
        columns = self._choices_columns(table, {question, answer})
        from_zero = "0" in map(str, table[answer][:])

        def read(row: Row) -> dict[str, Any]:
            names, choices = _choices(row, columns)
            if len(choices) != self.n_choices:
                reason = f"expected {self.n_choices} choices (task.n_choices), got {len(choices)}"
                raise ValueError(reason)
            label = _place(row[answer], names, choices, from_zero)
            return {"text": text_at(row, question), "choices": choices, "label": label}

        return Dataset.from_list(read_rows(table, split, read))

    def _choices_columns(self, table: Dataset, others: set[str]) -> list[str]:
        given, known = self.choices_column, [c for c in table.column_names if c not in others]
        if given is None and not {*CHOICES_COLUMNS} & {*known}:
            numbered = sorted(name for name in known if _NUMBERED.fullmatch(name))
            if len(numbered) > 1:
                return numbered
        if not isinstance(given, list):
            return [column_of(table, "choices", given, CHOICES_COLUMNS)]
        for name in given:
            if name not in known:
                raise StudyError(unknown("column", name, known), "task.choices_column")
        return given

    def encode(self, data: Data, reader: PreTrainedTokenizerBase) -> Examples:
        limit = min(self.max_length, reader.model_max_length)
        return Examples((), {s: _encoded(s, getattr(data, s), reader, limit) for s in SPLITS})


def _choices(row: Row, columns: Sequence[str]) -> tuple[list[str], list[str]]:
    """The names of the choices and their texts."""
    if len(columns) > 1:
        return list(columns), [text_at(row, name) for name in columns]
    value = row[columns[0]]
    names: Any = None
    if isinstance(value, Mapping):
        names, value = value.get("label"), value.get("text")
    if not isinstance(value, list) or not all(isinstance(c, str) and c.strip() for c in value):
        raise ValueError(f"{columns[0]} must be a list of texts, got {shown(value)}")
    return [*map(str, names or _letters(len(value)))], value


def _letters(n: int) -> list[str]:
    """`A`, `B` and so on; numbers where there are more choices than letters."""
    return [*ascii_uppercase[:n]] if n <= len(ascii_uppercase) else [*map(str, range(n))]


def _place(answer: Any, names: Sequence[str], choices: Sequence[str], from_zero: bool) -> int:
    """The place of the right choice.

    Whole numbers are places, and so are numbers written as text where some row has `0`, unless a
    choice is called so.
    """
    text = str(answer).strip()
    places = [str(place) for place in range(len(choices))]
    letters = [name[-1:].upper() for name in names]
    is_number = isinstance(answer, int) and not isinstance(answer, bool)
    numbered = is_number or (from_zero and "0" not in (*names, *choices))
    for known in (places,) if numbered else (names, choices, letters, places):
        if text in known:
            return known.index(text)
    reason = "the answer must be the place, the name or the text of a choice"
    raise ValueError(f"{reason}, got {shown(answer)}")


def _encoded(split: str, table: Dataset, tokenizer: PreTrainedTokenizerBase, limit: int) -> Encoded:
    names: list[str] = []
    examples: dict[str, list[torch.Tensor]] = {}
    padding = {"input_ids": tokenizer.pad_token_id, "token_type_ids": tokenizer.pad_token_type_id}
    whole: list[int] = []
    lost: list[int] = []
    for question, choices in zip(table["text"][:], table["choices"][:], strict=True):
        texts = {"text": [question] * len(choices), "text_pair": choices}
        read = tokenizer(**texts, truncation=True, max_length=limit)
        cut = cut_of(tokenizer, read["input_ids"], limit, texts)
        whole.append(int(cut.whole.sum()))
        lost.append(int(cut.lost.sum()))
        names = list(read)
        for name in names:
            rows = [torch.tensor(ids) for ids in read[name]]
            examples.setdefault(name, []).append(pad_sequence(rows, True, padding.get(name, 0)))
    return Encoded(
        name=split,
        columns=examples,
        padding={name: padding.get(name, 0) for name in names},
        lengths=torch.tensor([ids.numel() for ids in examples["input_ids"]]),
        labels=torch.tensor(table["label"][:]),
        cut=Cut(torch.tensor(whole), torch.tensor(lost)),
    )
