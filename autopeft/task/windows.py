"""Texts with a question, in windows that a model can read, and where answers stand in them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from datasets import Dataset
from transformers import BatchEncoding, PreTrainedTokenizerBase

from autopeft.core.errors import StudyError, shown
from autopeft.model.head import IGNORED, Span, Spans
from autopeft.task.batches import Cut, Encoded

_LEFT_OUT = ("offset_mapping", "overflow_to_sample_mapping")


@dataclass(frozen=True)
class Window:
    """What a part of a text says and where its tokens stand in the whole.

    Attributes:
        number: of the row whose text it is from.
        context: the whole text.
        offsets: first character of each token, and the one behind its last.
        answers: any of which is right; none where there is no answer.
        may_lack: whether texts of these data may lack an answer.
    """

    number: int
    context: str
    offsets: Sequence[tuple[int, int]]
    answers: Sequence[str]
    may_lack: bool = False

    def between(self, first: int, last: int) -> str:
        """The text from one token to another; empty from a token of no characters."""
        return self.context[self.offsets[first][0] : self.offsets[last][1]]


def answered(windows: Sequence[Window], spans: Sequence[Span]) -> Iterator[tuple[str, list[str]]]:
    """The answer to each row from all of its windows, and those that are right.

    It is the likeliest span of any window; where texts may lack an answer, none if the window that
    speaks least for that rates it higher (Rajpurkar et al. 2018, as run by BERT).
    """
    pairs = sorted(zip(windows, spans, strict=True), key=lambda pair: pair[0].number)
    for _, of_row in groupby(pairs, key=lambda pair: pair[0].number):
        row = list(of_row)
        window, span = max(row, key=lambda pair: pair[1].score)
        nothing = min(span.nothing for _, span in row)
        has_none = window.may_lack and nothing > span.score
        yield "" if has_none else window.between(span.first, span.last), list(window.answers)


def read_windows(
    tables: Mapping[str, Dataset],
    tokenizer: PreTrainedTokenizerBase,
    limit: int,
    stride: int | None,
) -> dict[str, Encoded]:
    """The windows of each split, with a target for each token that may belong to an answer.

    Where texts may lack an answer, or are read in several windows, the first token of a window
    stands for none in it.

    Args:
        tables: with the columns that the task makes, by split.
        tokenizer: a fast one.
        limit: tokens of question and text.
        stride: tokens that two windows share; None is a quarter of `limit`, or half of the room
            that questions leave if that is less.

    Raises:
        StudyError: a question leaves no room for a text.
    """
    may_lack = "[]" in tables["train"]["label"][:]
    read = {split: _read(table, tokenizer, limit, stride) for split, table in tables.items()}
    has_several = len(read["train"]["input_ids"]) > len(tables["train"])
    allows_none = may_lack or has_several
    return {
        split: _encoded(split, table, read[split], tokenizer, may_lack, allows_none)
        for split, table in tables.items()
    }


def _read(
    table: Dataset, tokenizer: PreTrainedTokenizerBase, limit: int, stride: int | None
) -> BatchEncoding:
    questions = table["text"][:]
    taken = [len(ids) for ids in tokenizer(questions, [""] * len(questions))["input_ids"]]
    if stride is None:
        stride = max(0, min(limit // 4, (limit - max(taken)) // 2))
    if limit - max(taken) <= stride:
        longest = shown(questions[taken.index(max(taken))])
        reason = f"{longest} takes {max(taken)} of {limit} tokens and leaves no room for a text"
        raise StudyError(f"{reason} of which windows share {stride}", "task.max_length")
    return tokenizer(
        questions,
        table["text_pair"][:],
        truncation="only_second",
        max_length=limit,
        stride=stride,
        return_offsets_mapping=True,
        return_overflowing_tokens=True,
    )


def _encoded(
    split: str,
    table: Dataset,
    read: BatchEncoding,
    tokenizer: PreTrainedTokenizerBase,
    may_lack: bool,
    allows_none: bool,
) -> Encoded:
    columns = {
        name: [torch.tensor(ids) for ids in rows]
        for name, rows in read.items()
        if name not in _LEFT_OUT
    }
    contexts = table["text_pair"][:]
    answers = [json.loads(label) for label in table["label"][:]]
    targets, windows = [], []
    numbers = read["overflow_to_sample_mapping"]
    for place, number in enumerate(numbers):
        parts = read.sequence_ids(place)
        pairs = zip(read["offset_mapping"][place], parts, strict=True)
        kept = [offset if part == 1 else (0, 0) for offset, part in pairs]
        bounds = _bounds(numbers, place, kept, len(contexts[number]))
        held = [answer for answer in answers[number][:1] if _holds(bounds, *answer)]
        targets.append(_target(kept, parts, held, allows_none))
        right = [text for text, _ in answers[number]]
        windows.append(Window(number, contexts[number], kept, right, may_lack))
    padding = dict.fromkeys(columns, 0)
    padding["input_ids"] = tokenizer.pad_token_id
    if "token_type_ids" in padding:
        padding["token_type_ids"] = tokenizer.pad_token_type_id
    lengths = torch.tensor([len(ids) for ids in columns["input_ids"]])
    whole = [len(ids) for ids in _whole(table, tokenizer)]
    cut, units = Cut.of(whole, max(whole)), torch.tensor(numbers)
    return Encoded(split, columns, padding, lengths, targets, cut, references=windows, units=units)


def _whole(table: Dataset, tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """The token ids of questions and texts, however long."""
    texts = {name: table[name][:] for name in ("text", "text_pair")}
    return list(tokenizer(**texts, verbose=False)["input_ids"])


def _bounds(
    numbers: Sequence[int], place: int, offsets: Sequence[tuple[int, int]], length: int
) -> tuple[int, int]:
    """The first character of a text that a window has, and the one behind its last.

    Args:
        numbers: of the row that each window is of.
        place: of the window.
        offsets: of its tokens in the text, (0, 0) of others.
        length: of the text.
    """
    inside = [offset for offset in offsets if offset != (0, 0)]
    is_later = numbers[place - 1 : place] == [numbers[place]]
    goes_on = numbers[place + 1 : place + 2] == [numbers[place]]
    return inside[0][0] if is_later else 0, inside[-1][1] if goes_on else length


def _holds(bounds: tuple[int, int], text: str, at: int) -> bool:
    """Whether a text at `at` is between two characters, blanks around it aside."""
    first, last = at + len(text) - len(text.lstrip()), at + len(text.rstrip())
    return bounds[0] <= first and last <= bounds[1]


def _target(
    offsets: Sequence[tuple[int, int]],
    parts: Sequence[int | None],
    answers: Sequence[tuple[str, int]],
    allows_none: bool,
) -> torch.Tensor:
    """The targets of a window, see `Spans`.

    Args:
        offsets: of every token in the text.
        parts: 1 for tokens of the text.
        answers: that it holds, with their first characters; the first one is learned.
        allows_none: whether the first token stands for no answer.
    """
    target = torch.tensor([0 if part == 1 else IGNORED for part in parts])
    if allows_none:
        target[0] = 0
    for text, at in answers[:1]:
        first, end = at + len(text) - len(text.lstrip()), at + len(text.rstrip())
        covered = [n for n, (a, b) in enumerate(offsets) if a < end and b > first]
        if covered:
            target[covered[0]] |= Spans.START
            target[covered[-1]] |= Spans.END
            return target
    if allows_none:
        target[0] = Spans.START | Spans.END
    return target
