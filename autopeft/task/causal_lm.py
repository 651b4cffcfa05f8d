"""Language models that say the next token: conversations, prompts with completions, texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date
from itertools import chain
from typing import Annotated, Any, Literal, TypeAlias

import torch
from datasets import Dataset
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedTokenizerBase

from autopeft.core.errors import StudyError
from autopeft.model.head import HEADS, IGNORED, Head
from autopeft.task.answers import Tokens, answers_of
from autopeft.task.batches import Cut, Encoded
from autopeft.task.conversations import Named, Sample, samples
from autopeft.task.data import Data
from autopeft.task.language import LanguageTask
from autopeft.task.rows import KEY
from autopeft.task.tables import SPLITS, filled_tables
from autopeft.task.tokens import Examples, tensors_of

Template: TypeAlias = dict[str, str]
"""What each role says."""

_GENERATION = "generation %}"
"""By which a chat template marks what the assistant says."""

_DATE = "strftime_now"
"""By which it says the date."""


class CausalLM(LanguageTask):
    """The next token of a conversation, of the completion of a prompt, or of a text.

    Attributes:
        loss_on: `completion` learns the assistant's turns and the completions, `all` every token;
            None is `completion` where there is a prompt.
        messages_template: makes a conversation of each row: what the roles `system`, `user` and
            `assistant` say, with the names of columns in braces, as in `{review}`; a dot leads into
            a mapping. Of several each makes one, and those of a row stay in one split.
        messages_column: None, like the other columns, stands for the obvious one.
    """

    type: Literal["causal-lm"] = "causal-lm"
    loss_on: Literal["completion", "all"] | None = None
    messages_template: Template | Annotated[list[Template], Field(min_length=1)] | None = None
    messages_column: str | None = None
    prompt_column: str | None = None
    completion_column: str | None = None
    text_column: str | None = None

    @property
    def head(self) -> Head:
        return HEADS["causal-lm"]

    def load(self) -> Data:
        """The samples as text in the column `text`, see `Sample.dumps`."""
        tables = {s: self._samples(table, s) for s, table in filled_tables(self.data).items()}
        return Data(**self.cut(tables), label_names=())

    def _samples(self, table: Dataset, split: str) -> Dataset:
        """The samples of a split; those of one row are a group."""
        given = self.messages_template
        named = Named(
            self.messages_column, self.prompt_column, self.completion_column, self.text_column
        )
        ways = [replace(named, template=t) for t in (given if isinstance(given, list) else [given])]
        by_way = [[s.dumps() for s in samples(table, way, split)] for way in ways]
        texts = [text for of_row in zip(*by_way, strict=True) for text in of_row]
        if len(ways) == 1:
            return Dataset.from_dict({"text": texts})
        groups = connected([*zip(*by_way, strict=True)])
        return Dataset.from_dict({"text": texts, "group": [g for g in groups for _ in ways]})

    def encode(self, data: Data, reader: PreTrainedTokenizerBase) -> Examples:
        limit = min(self.max_length, reader.model_max_length)
        splits = {s: self._encoded(s, getattr(data, s), reader, limit) for s in SPLITS}
        return Examples((), splits)

    def _encoded(
        self, split: str, table: Dataset, tokenizer: PreTrainedTokenizerBase, limit: int
    ) -> Encoded:
        texts, learns_all = table["text"][:], self.loss_on == "all"
        rows = _rows(texts, tokenizer, learns_all)
        answers = None
        if self.predict_with_generate and split != "train":
            told = _rows(texts, tokenizer, False) if learns_all else rows
            listed = [(ids.tolist(), learned.tolist()) for ids, learned in told]
            answers = answers_of(split, listed, tokenizer, limit, self.max_new_tokens)
            answers = replace(answers, own=self.own_metrics)
        kept = [ids[:limit] for ids, _ in rows]
        columns = {"input_ids": kept, "attention_mask": [torch.ones_like(ids) for ids in kept]}
        targets = [_following(ids[:limit], learned[:limit]) for ids, learned in rows]
        if not any((target != IGNORED).any() for target in targets):
            reason = f"within {limit} tokens no row of the split {split!r} comes to its completion"
            raise StudyError(reason, "task.max_length")
        padding = {"input_ids": tokenizer.pad_token_id, "attention_mask": 0}
        lengths = torch.tensor([len(ids) for ids in kept])
        cut = Cut.of([len(ids) for ids, _ in rows], limit)
        return Encoded(split, columns, padding, lengths, targets, cut, answers=answers)


def _rows(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, learns_all: bool
) -> list[tuple[Tensor, Tensor]]:
    """The ids of some samples and which of them are learned, both (tokens,), see `tokens_of`.

    They are computed once on a node, and once a day where the chat template says the date.
    """

    def made() -> dict[str, Tensor]:
        read = (Sample.loads(text) for text in texts)
        rows = [tokens_of(sample, tokenizer, learns_all=learns_all) for sample in read]
        ids, learned = (list(chain.from_iterable(part)) for part in zip(*rows, strict=True))
        sizes = [len(of_row) for of_row, _ in rows]
        named = {"ids": torch.tensor(ids, dtype=torch.int64), "sizes": torch.tensor(sizes)}
        return {**named, "learned": torch.tensor(learned, dtype=torch.bool)}

    template = str(tokenizer.chat_template)
    today = date.today().isoformat() if _DATE in template else ""
    tensors = tensors_of(made, tokenizer, [texts], template, today, learns_all)
    sizes = tensors["sizes"].tolist()
    return list(zip(tensors["ids"].split(sizes), tensors["learned"].split(sizes), strict=True))


def connected(rows: Sequence[Sequence[str]]) -> list[str]:
    """One text a row, the same for rows that share a text, also by way of others."""
    leads: dict[str, str] = {}

    def lead(text: str) -> str:
        while leads.setdefault(text, text) != text:
            leads[text] = text = leads[leads[text]]
        return text

    for first, *others in rows:
        for other in others:
            leads[lead(other)] = lead(first)
    return [lead(first) for first, *_ in rows]


def tokens_of(
    sample: Sample, tokenizer: PreTrainedTokenizerBase, *, learns_all: bool = False
) -> Tokens:
    """A sample, of which the completion or what the assistant says is learned, or all.

    Raises:
        StudyError: there is no chat template for a conversation, or one that refuses it, or in
            which the assistant's turns cannot be told apart.
    """
    if not sample.messages:
        ids, learned = _completed(sample, tokenizer)
    elif learns_all:
        ids, learned = _through(tokenizer, sample, sample.messages)["input_ids"], []
    else:
        ids, learned = _conversed(sample, tokenizer)
    return ids, [True] * len(ids) if learns_all else learned


def _following(ids: Tensor, learned: Tensor) -> Tensor:
    """The token after each, (tokens,), where it is learned."""
    return F.pad(ids.masked_fill(~learned, IGNORED)[1:], (0, 1), value=IGNORED)


def _completed(sample: Sample, tokenizer: PreTrainedTokenizerBase) -> Tokens:
    """A prompt and its completion with the end token; without a prompt all is learned."""
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    opening = tokenizer(sample.prompt)["input_ids"] if sample.prompt else []
    while opening and opening[-1:] == end:
        opening.pop()
    has_start = bool(opening)
    closing = tokenizer(sample.completion, add_special_tokens=not has_start)["input_ids"]
    closing = closing if closing[-1:] == end else [*closing, *end]
    return opening + closing, [False] * len(opening) + [True] * len(closing)


def _conversed(sample: Sample, tokenizer: PreTrainedTokenizerBase) -> Tokens:
    """A conversation, of which the assistant's turns are learned."""
    if tokenizer.chat_template and _GENERATION in tokenizer.get_chat_template():
        made = _through(tokenizer, sample, sample.messages, return_assistant_tokens_mask=True)
        return made["input_ids"], [bool(each) for each in made["assistant_masks"]]
    whole = _through(tokenizer, sample, sample.messages)["input_ids"]
    learned = [False] * len(whole)
    for place, message in enumerate(sample.messages):
        if message["role"] == "assistant":
            until = sample.messages[:place]
            before = _through(tokenizer, sample, until, add_generation_prompt=True)["input_ids"]
            after = _through(tokenizer, sample, sample.messages[: place + 1])["input_ids"]
            if after[: len(before)] != before or whole[: len(after)] != after:
                reason = "what the assistant says cannot be told from the rest of the conversation"
                hint = "`loss_on: all` learns all of it"
                raise StudyError(f"in this chat template {reason}; {hint}", "task.loss_on")
            learned[len(before) : len(after)] = [True] * (len(after) - len(before))
    return whole, learned


def _through(
    tokenizer: PreTrainedTokenizerBase,
    sample: Sample,
    messages: Sequence[Mapping[str, Any]],
    **options: bool,
) -> Any:
    """Token ids of some turns by the chat template."""
    if not tokenizer.chat_template:
        reason = "the tokenizer has no chat template, which conversations need"
        raise StudyError(f"{reason}; data with a prompt and a completion need none", "model")
    try:
        return tokenizer.apply_chat_template(
            list(messages),
            tools=list(sample.tools) or None,
            tokenize=True,
            return_dict=True,
            **options,
        )
    except Exception as error:  # a template can raise anything
        turns = ", ".join(message["role"] for message in messages)
        reason = f"the chat template refuses a conversation of {turns}: {error}"
        raise StudyError(reason, KEY) from error
