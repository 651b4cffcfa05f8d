"""What a language model is to say by itself, and how close what it says comes to that."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from autopeft.core.errors import StudyError
from autopeft.task.rows import KEY

Comparison = Callable[[Sequence[str], Sequence[str]], float]
"""Of what answers are to be and what is said; more is better."""

Tokens = tuple[list[int], list[bool]]
"""Ids, and which of them are learned."""

PERCENT = 100
"""sacrebleu counts in per cent, everything else from 0 to 1."""


@dataclass(frozen=True)
class Answers:
    """What is asked in the examples of a split, and the answers.

    Attributes:
        prompts: token ids (tokens,) of each example.
        texts: the answers.
        ends: ids of tokens that end an answer.
        max_new_tokens: after which an answer ends anyway.
        own: comparisons of the user's own by name.
    """

    prompts: Sequence[Tensor]
    texts: Sequence[str]
    ends: tuple[int, ...]
    max_new_tokens: int
    own: Mapping[str, Comparison] = field(default_factory=dict)

    def compared(self, rows: Sequence[int], given: Sequence[str]) -> dict[str, float]:
        """How close what is said comes to the answers, by every comparison.

        Args:
            rows: of which examples.
            given: what is said to each.
        """
        wanted = [self.texts[row] for row in rows]
        comparisons = {**COMPARISONS, **self.own}
        return {name: float(compare(wanted, given)) for name, compare in comparisons.items()}


def answers_of(
    split: str,
    rows: Sequence[Tokens],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    max_new_tokens: int | None,
) -> Answers:
    """The last thing that is learned of each row, asked for by what comes before it.

    Args:
        split: its name.
        rows: of the split.
        tokenizer: turns answers into text.
        max_length: of a prompt, of which the end is kept, and of an answer.
        max_new_tokens: None is the length of the longest answer, at most `max_length`.

    Raises:
        StudyError: nothing comes before it in some row.
    """
    prompts, answers = zip(*(_parted(*row) for row in rows), strict=True)
    unasked = [number for number, prompt in enumerate(prompts, 1) if not prompt]
    if unasked:
        what = f"{len(unasked)} of {len(rows)} rows of the split {split!r} have no prompt to answer"
        raise StudyError(f"{what}, first row {unasked[0]}", KEY)
    new = max_new_tokens or min(max_length, max(map(len, answers)))
    room = tokenizer.model_max_length - new
    if room < 1:
        reason = f"the model has {tokenizer.model_max_length} positions, got {new}"
        raise StudyError(reason, "task.max_new_tokens")
    kept = [torch.tensor(prompt[-min(max_length, room) :]) for prompt in prompts]
    return Answers(kept, said(answers, tokenizer), ends_of(answers, tokenizer), new)


def said(answers: Any, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Token ids as texts, without special tokens and white space at their ends."""
    texts = tokenizer.batch_decode(answers, skip_special_tokens=True)
    return [text.strip() for text in texts]


def ends_of(
    answers: Iterable[Sequence[int]], tokenizer: PreTrainedTokenizerBase
) -> tuple[int, ...]:
    """Ids that end an answer: the end of text, and the last special token of any of them."""
    special = {*tokenizer.all_special_ids}
    last = {next((i for i in reversed(a) if i in special), None) for a in answers}
    return tuple(sorted({tokenizer.eos_token_id, *last} - {None}))


def _parted(ids: list[int], learned: list[bool]) -> tuple[list[int], list[int]]:
    """What comes before the last tokens that are learned, and those; neither where none are."""
    if not any(learned):
        return [], []
    end = len(ids) - learned[::-1].index(True)
    start = end - next(
        (n for n, is_learned in enumerate(learned[:end][::-1]) if not is_learned), end
    )
    return ids[:start], ids[start:end]


def exact_match(wanted: Sequence[str], given: Sequence[str]) -> float:
    """The share of answers that are as they are to be."""
    return fmean(a == b for a, b in zip(wanted, given, strict=True))


def rouge_l(wanted: Sequence[str], given: Sequence[str]) -> float:
    """The mean F-measure of longest common subsequences of words (Lin 2004)."""
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"], tokenizer=_Words())
    pairs = zip(wanted, given, strict=True)
    return fmean(scorer.score(a, b)["rougeL"].fmeasure for a, b in pairs)


class _Words:
    """The words of a text in any script, in lower case."""

    def tokenize(self, text: str) -> list[str]:
        return re.findall(r"\w+", text.lower())


def bleu(wanted: Sequence[str], given: Sequence[str]) -> float:
    """BLEU of all answers together (Papineni et al. 2002), from 0 to 1."""
    from sacrebleu.metrics.bleu import BLEU

    return float(BLEU().corpus_score(list(given), [list(wanted)]).score) / PERCENT


def chrf(wanted: Sequence[str], given: Sequence[str]) -> float:
    """The chrF of all answers together (Popović 2015), from 0 to 1."""
    from sacrebleu.metrics.chrf import CHRF

    return float(CHRF().corpus_score(list(given), [list(wanted)]).score) / PERCENT


COMPARISONS: Mapping[str, Comparison] = {
    "exact_match": exact_match,
    "rouge_l": rouge_l,
    "bleu": bleu,
    "chrf": chrf,
}
"""How close answers come, by name."""
