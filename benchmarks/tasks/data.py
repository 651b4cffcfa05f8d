"""Real examples of every task from two sources: papers of ACLSum, and sentences of film reviews."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import numpy as np
from datasets import Dataset

from autopeft.task.snippets import snippets
from autopeft.task.tables import SPLITS, filled_tables

ASPECTS = ("challenge", "approach", "outcome")
N_CHOICES = 4
N_FILMS = {"train": 400, "validation": 200, "test": 400}

Row = dict[str, Any]
Rows = Mapping[str, list[Row]]


@cache
def papers() -> Mapping[str, Dataset]:
    """By split: titles, abstracts, and a summary and highlights of each aspect."""
    return filled_tables("package:aclsum/dataset")


def highlighted(paper: Row) -> list[Row]:
    """The sentences of an abstract, and which aspects each is about: several, or none."""
    sentences, marks = paper["sentences"]["abstract"], paper["highlights"]
    return [
        {"text": text, "label": [a for a in ASPECTS if marks[a]["abstract"][place]]}
        for place, text in enumerate(sentences)
    ]


def asked(paper: Row) -> list[Row]:
    """What each aspect is, where a sentence of the abstract says it."""
    sentences = paper["sentences"]["abstract"]
    context = " ".join(sentences)
    rows = []
    for aspect in ASPECTS:
        marks = paper["highlights"][aspect]["abstract"]
        if any(marks):
            answer = sentences[marks.index(1)]
            found = {"text": [answer], "answer_start": [context.index(answer)]}
            question = f"what is the {aspect} of the paper"
            rows.append({"question": question, "context": context, "answers": found})
    return rows


def of_papers(make: Any) -> Rows:
    """What is made of every paper."""
    return {s: [row for paper in papers()[s] for row in make(paper)] for s in SPLITS}


def choices() -> Rows:
    """Which of four sentences is the approach of a paper with this title."""
    rows: dict[str, list[Row]] = {}
    for split in SPLITS:
        of_split, rng = list(papers()[split]), np.random.default_rng(0)
        rows[split] = []
        for place, paper in enumerate(of_split):
            others = rng.choice(len(of_split) - 1, N_CHOICES - 1, replace=False)
            said = [of_split[n + (n >= place)]["summary"]["approach"] for n in others]
            right = int(rng.integers(N_CHOICES))
            said.insert(right, paper["summary"]["approach"])
            rows[split].append({"question": paper["title"], "choices": said, "answer": right})
    return rows


def capitals() -> Rows:
    """The words of sentences in small letters, and which of them had a capital (truecasing)."""
    texts = iter(sorted(snippets("package:movie-snippets")["text"]))
    texts = iter(np.random.default_rng(0).permutation(list(texts)).tolist())
    return {split: list(_cased(texts, n)) for split, n in N_FILMS.items()}


def _cased(texts: Iterator[str], n_rows: int) -> Iterator[Row]:
    for _ in range(n_rows):
        words = re.findall(r"[A-Za-z]+(?:'[a-z]+)?", next(texts))
        tags = ["CAPITAL" if word[0].isupper() else "O" for word in words]
        yield {"tokens": [word.lower() for word in words] or ["a"], "ner_tags": tags or ["O"]}
