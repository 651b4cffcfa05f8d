from __future__ import annotations

import random
from collections import Counter

import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from autopeft.core.errors import StudyError
from autopeft.task.split import complete, limited, stratified_order

ROWS = [(f"sentence {i}", 0 if i % 4 else 1) for i in range(400)]


def table(rows: list[tuple[str, int]]) -> Dataset:
    return Dataset.from_dict({"text": [t for t, _ in rows], "label": [n for _, n in rows]})


def texts(part: Dataset) -> set[str]:
    return set(part["text"])


def test_missing_splits_are_cut_from_training_in_proportion() -> None:
    parts = complete({"train": table(ROWS)}, 0.1)
    assert {split: len(part) for split, part in parts.items()} == {
        "train": 320,
        "validation": 40,
        "test": 40,
    }
    assert Counter(parts["test"]["label"]) == {0: 30, 1: 10}
    assert set.union(*map(texts, parts.values())) == {text for text, _ in ROWS}


def test_a_given_split_stays_whole() -> None:
    given_test = table([("elsewhere", 0), ("beyond", 1)])
    parts = complete({"train": table(ROWS), "test": given_test}, 0.1)
    assert parts["test"] is given_test
    assert (len(parts["train"]), len(parts["validation"])) == (360, 40)
    whole = {"train": table(ROWS), "validation": given_test, "test": given_test}
    assert complete(whole, 0.1) == whole


def test_the_cut_hangs_on_the_texts_not_on_their_order() -> None:
    other = random.Random(0).sample(ROWS, len(ROWS))
    first, second = complete({"train": table(ROWS)}, 0.1), complete({"train": table(other)}, 0.1)
    assert all(list(first[split]["text"]) == list(second[split]["text"]) for split in first)


def test_the_cut_is_this_one_in_every_process() -> None:
    assert complete({"train": table(ROWS)}, 0.1)["test"]["text"][:3] == [
        "sentence 214",
        "sentence 145",
        "sentence 84",
    ]


@given(
    st.lists(st.tuples(st.integers(0, 12), st.integers(0, 2)), min_size=30, max_size=80),
    st.floats(0.05, 0.3),
)
def test_no_text_comes_to_lie_on_two_sides(rows: list[tuple[int, int]], fraction: float) -> None:
    try:
        parts = complete({"train": table([(f"{t} ", n) for t, n in rows])}, fraction)
    except StudyError:
        return
    found = [texts(part) for part in parts.values()]
    assert sum(map(len, found)) == len(set.union(*found))
    assert sum(map(len, parts.values())) == len(rows)


def test_pairs_are_told_apart_by_both_texts() -> None:
    pairs = Dataset.from_dict(
        {"text": ["a"] * 60, "text_pair": [str(i) for i in range(60)], "label": [0, 1] * 30}
    )
    parts = complete({"train": pairs}, 0.1)
    assert [len(parts[split]) for split in ("train", "validation", "test")] == [48, 6, 6]


def test_every_beginning_of_the_order_has_the_classes_in_proportion() -> None:
    labels = table(ROWS).select(stratified_order(table(ROWS)))["label"]
    for size in range(1, len(ROWS)):
        assert abs(sum(labels[:size]) - size / 4) <= 1


def test_limits_are_nested() -> None:
    assert limited(table(ROWS), None).num_rows == limited(table(ROWS), 500).num_rows == 400
    small, large = limited(table(ROWS), 30), limited(table(ROWS), 60)
    assert (len(small), len(large)) == (30, 60)
    assert texts(small) < texts(large)


def test_too_few_rows_are_refused() -> None:
    with pytest.raises(StudyError, match=r"^task.data: 4 training rows are too few"):
        complete({"train": table(ROWS[:4])}, 0.1)
