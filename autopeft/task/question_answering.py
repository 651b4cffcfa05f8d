"""Answers to questions that stand, word for word, in a text."""

from __future__ import annotations

import json
import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any, Literal

from datasets import Dataset
from pydantic import Field
from transformers import PreTrainedTokenizerBase

from autopeft.core.errors import StudyError, shown
from autopeft.model.head import Head, Spans
from autopeft.task.data import Data
from autopeft.task.rows import Row, read_rows, text_at
from autopeft.task.tables import SPLITS, column_of, filled_tables
from autopeft.task.task import Goal, Judged, Metric, Task
from autopeft.task.tokens import Examples
from autopeft.task.windows import answered, read_windows

QUESTION_COLUMNS = ("question", "query")
CONTEXT_COLUMNS = ("context", "passage", "document", "paragraph", "text")
ANSWER_COLUMNS = ("answers", "answer")

_ARTICLES = re.compile(r"\b(a|an|the)\b")


class QuestionAnswering(Task):
    """A question and a text that holds its answer, or none.

    A text that is longer than `max_length` with its question is read in windows, of which each is
    an example, and answered once from all of them.

    Attributes:
        question_column: None, like the other columns, stands for the obvious one.
        context_column: of the text; rows with the same one are on one side of a split.
        answers_column: a text, or texts with their first characters as in SQuAD; an answer without
            its first character is looked for in the text.
        doc_stride: tokens that two windows of a text share; None is a quarter of `max_length`, or
            less where questions are long.
        max_answer_length: tokens of an answer.
    """

    type: Literal["question-answering"] = "question-answering"
    question_column: str | None = None
    context_column: str | None = None
    answers_column: str | None = None
    doc_stride: int | None = Field(default=None, ge=0, le=2**20)
    max_answer_length: int = Field(default=30, ge=1, le=2**20)

    @property
    def head(self) -> Head:
        criterion = Spans(self.max_answer_length)
        return Head(self.type, "AutoModelForQuestionAnswering", criterion, n_labels=None)

    @property
    def metrics(self) -> Mapping[str, Metric]:
        return {}

    @property
    def goals(self) -> dict[str, Goal]:
        return {**super().goals, "exact_match": "maximize", "f1": "maximize"}

    def measure(self, names: Sequence[str], judged: Judged) -> dict[str, float]:
        """The best agreement with any answer, as SQuAD counts it (Rajpurkar et al. 2016)."""
        pairs = [(said, right or [""]) for said, right in answered(judged.references, judged.given)]
        given, wanted = ([*column] for column in zip(*pairs, strict=True))
        return {
            **super().measure((), Judged(wanted, given, judged.loss)),
            "exact_match": fmean(max(_exact(s, a) for a in answers) for s, answers in pairs),
            "f1": fmean(max(_f1(s, a) for a in answers) for s, answers in pairs),
        }

    def load(self) -> Data:
        """Questions in the column `text`, texts in `text_pair`, answers in `label` as JSON."""
        tables = {s: self._read(table, s) for s, table in filled_tables(self.data).items()}
        return Data(**self.cut(tables), label_names=())

    def _read(self, table: Dataset, split: str) -> Dataset:
        question = column_of(table, "question", self.question_column, QUESTION_COLUMNS)
        context = column_of(table, "context", self.context_column, CONTEXT_COLUMNS)
        answers = column_of(table, "answers", self.answers_column, ANSWER_COLUMNS)

        def read(row: Row) -> dict[str, str]:
            text = text_at(row, context)
            found = json.dumps(_answers(row[answers], text, row.get("answer_start")))
            asked = text_at(row, question).strip()
            return {"text": asked, "text_pair": text, "group": text, "label": found}

        return Dataset.from_list(read_rows(table, split, read))

    def encode(self, data: Data, reader: PreTrainedTokenizerBase) -> Examples:
        if not reader.is_fast:
            reason = "its tokenizer does not tell where a token stands; a fast one is needed"
            raise StudyError(reason, "model")
        limit = min(self.max_length, reader.model_max_length)
        tables = {split: getattr(data, split) for split in SPLITS}
        return Examples((), read_windows(tables, reader, limit, self.doc_stride))


def _answers(value: Any, context: str, start: Any) -> list[tuple[str, int]]:
    """Texts and the places of their first characters.

    Raises:
        ValueError: a text does not stand there.
    """
    if isinstance(value, Mapping):
        texts, starts = value.get("text"), value.get("answer_start", value.get("start"))
    else:
        texts, starts = value, start
    texts = [] if texts is None or texts == "" else [texts] if isinstance(texts, str) else texts
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"answers must be texts, got {shown(value)}")
    starts = starts if isinstance(starts, list) else [starts]
    if len(starts) != len(texts) or None in starts:
        starts = [context.find(text) for text in texts]
    given = [(t, at) for t, at in zip(texts, starts, strict=True) if t.strip()]
    texts, places = [text for text, _ in given], [int(at) for _, at in given]
    for text, at in zip(texts, places, strict=True):
        if at < 0 or context[at : at + len(text)] != text:
            raise ValueError(f"the answer {shown(text)} is not in the text at {at}")
    return list(zip(texts, places, strict=True))


def _words(text: str) -> list[str]:
    """Lower-case words without punctuation and articles."""
    plain = "".join(c for c in text.lower() if c not in string.punctuation)
    return _ARTICLES.sub(" ", plain).split()


def _exact(said: str, answer: str) -> float:
    return float(_words(said) == _words(answer))


def _f1(said: str, answer: str) -> float:
    """The harmonic mean of precision and recall of words."""
    ours, theirs = _words(said), _words(answer)
    common = sum((Counter(ours) & Counter(theirs)).values())
    if not ours or not theirs or not common:
        return float(ours == theirs)
    return 2 * common / (len(ours) + len(theirs))
