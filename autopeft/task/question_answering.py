"""Answers to questions that stand, word for word, in a text."""

from __future__ import annotations

import json
import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Literal

import torch
from datasets import Dataset
from pydantic import Field
from transformers import PreTrainedTokenizerBase

from autopeft.core.errors import StudyError, shown
from autopeft.model.head import IGNORED, Head, Spans
from autopeft.task.batches import Encoded
from autopeft.task.data import Data
from autopeft.task.rows import Row, read_rows, text_at
from autopeft.task.tables import SPLITS, column_of, filled_tables
from autopeft.task.task import Goal, Judged, Metric, Task
from autopeft.task.tokens import Examples

QUESTION_COLUMNS = ("question", "query")
CONTEXT_COLUMNS = ("context", "passage", "document", "paragraph", "text")
ANSWER_COLUMNS = ("answers", "answer")

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_START, _END = Spans.START, Spans.END


@dataclass(frozen=True)
class Reading:
    """What a text says and where its tokens stand in it.

    Attributes:
        offsets: first character of each token, and the one behind its last.
        answers: any of which is right; none where there is no answer.
    """

    context: str
    offsets: Sequence[tuple[int, int]]
    answers: Sequence[str]

    def between(self, first: int, last: int) -> str:
        """The text from one token to another; empty from a token of no characters."""
        return self.context[self.offsets[first][0] : self.offsets[last][1]]


class QuestionAnswering(Task):
    """A question and a text that holds its answer, or none.

    The text of which the answer is cut off by `max_length` is not learned from, and counts as
    answered wrongly.

    Attributes:
        question_column: None, like the other columns, stands for the obvious one.
        context_column: of the text; rows with the same one are on one side of a split.
        answers_column: a text, or texts with their first characters as in SQuAD; an answer without
            its first character is looked for in the text.
        max_answer_length: tokens of an answer.
    """

    type: Literal["question-answering"] = "question-answering"
    question_column: str | None = None
    context_column: str | None = None
    answers_column: str | None = None
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
        spans = zip(judged.references, judged.given, strict=True)
        said = [reading.between(*span) for reading, span in spans]
        right = [reading.answers or [""] for reading in judged.references]
        pairs = list(zip(said, right, strict=True))
        return {
            **super().measure((), Judged(right, said, judged.loss)),
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
        may_lack = "[]" in data.train["label"][:]
        return Examples(
            (), {s: _encoded(s, getattr(data, s), reader, limit, may_lack) for s in SPLITS}
        )


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
    places = [int(at) for at in starts]
    for text, at in zip(texts, places, strict=True):
        if at < 0 or context[at : at + len(text)] != text:
            raise ValueError(f"the answer {shown(text)} is not in the text at {at}")
    return list(zip(texts, places, strict=True))


def _encoded(
    split: str,
    table: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    limit: int,
    may_lack: bool,
) -> Encoded:
    """Examples with a target for each token that may belong to an answer.

    Args:
        split: its name.
        table: with the columns that `load` makes.
        tokenizer: a fast one.
        limit: tokens of question and text.
        may_lack: whether texts may lack an answer, which the first token then stands for.
    """
    questions, contexts = table["text"][:], table["text_pair"][:]
    options = {"truncation": "only_second", "max_length": limit, "return_offsets_mapping": True}
    try:
        read = tokenizer(questions, contexts, **options)
    except Exception as error:  # what tokenizers raise where a question fills everything
        longest = max(questions, key=len)
        reason = f"within {limit} tokens there is no room for a text beside {shown(longest)}"
        raise StudyError(reason, "task.max_length") from error
    columns = {
        name: [torch.tensor(ids) for ids in rows]
        for name, rows in read.items()
        if name != "offset_mapping"
    }
    marked = [
        _marked(read["offset_mapping"][row], read.sequence_ids(row), json.loads(label), may_lack)
        for row, label in enumerate(table["label"][:])
    ]
    targets = [target for target, _, _ in marked]
    readings = [
        Reading(text, o, right) for text, (_, o, right) in zip(contexts, marked, strict=True)
    ]
    cut = sum(bool(r) and not (t > 0).any() for t, _, r in marked)
    padding = dict.fromkeys(columns, 0)
    padding["input_ids"] = tokenizer.pad_token_id
    if "token_type_ids" in padding:
        padding["token_type_ids"] = tokenizer.pad_token_type_id
    lengths = torch.tensor([len(ids) for ids in columns["input_ids"]])
    return Encoded(split, columns, padding, lengths, targets, cut, references=readings)


def _marked(
    offsets: Sequence[tuple[int, int]],
    parts: Sequence[int | None],
    answers: Sequence[tuple[str, int]],
    may_lack: bool,
) -> tuple[torch.Tensor, list[tuple[int, int]], list[str]]:
    """The targets of a row, where its tokens stand in the text, and the texts of the answers.

    Args:
        offsets: of every token in what it is from.
        parts: 1 for tokens of the text.
        answers: with their first characters; the first one is learned.
        may_lack: see `_encoded`.
    """
    inside = [part == 1 for part in parts]
    target = torch.tensor([0 if is_inside else IGNORED for is_inside in inside])
    kept = [o if is_inside else (0, 0) for o, is_inside in zip(offsets, inside, strict=True)]
    if may_lack:
        target[0] = 0 if answers else _START | _END
    for text, at in answers[:1]:
        end = at + len(text.rstrip())
        covered = [n for n, (a, b) in enumerate(kept) if a < end and b > at]
        if covered and kept[covered[-1]][1] >= end:
            target[covered[0]] |= _START
            target[covered[-1]] |= _END
    return target, kept, [text for text, _ in answers]


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
