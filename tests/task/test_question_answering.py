"""Answers inside texts: marks, scores, forms of data, a study from file to export."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf
from datasets import Dataset
from torch.nn import functional as F

import autopeft
from autopeft.core.errors import StudyError
from autopeft.model.backbone import load_tokenizer
from autopeft.model.head import IGNORED, Span, Spans
from autopeft.task.registry import task_of
from autopeft.task.task import Judged
from autopeft.task.windows import Window, answered
from tests import tiny
from tests.exports import exported

TEXTS = [
    f"the {('first', 'second')[i % 2]} film of {1900 + i} is by {'GKL'[i % 3]}. A. Hill"
    for i in range(30)
]


def rows() -> list[dict[str, Any]]:
    """Questions of SQuAD's form; a fifth has no answer."""
    made = []
    for i, text in enumerate(TEXTS):
        answer = str(1900 + i)
        found = {"text": [answer], "answer_start": [text.index(answer)]}
        none = {"text": [], "answer_start": []}
        lacks = i % 5 == 4
        asked = "who has sung" if lacks else "when was the film"
        made.append({"question": asked, "context": text, "answers": none if lacks else found})
    return made


def saved(folder: Path, given: list[dict[str, Any]]) -> str:
    Dataset.from_list(given).to_parquet(folder / "data.parquet")
    return str(folder / "data.parquet")


def task(data: str, **options: Any) -> Any:
    return task_of({"type": "question-answering", "data": data, "max_length": 32, **options})


def test_an_answer_is_marked_where_it_stands(tmp_path: Path) -> None:
    """What the marked tokens cover is the answer; the first token stands for none."""
    made = task(saved(tmp_path, rows()))
    tokenizer = load_tokenizer(tiny.MODEL)
    data = made.load()
    train = made.encode(data, tokenizer).splits["train"]
    labels = train.batch(torch.arange(len(train)), torch.device("cpu")).labels
    for label, window, row in zip(data.train["label"][:], train.references, labels, strict=True):
        answers = json.loads(label)
        first, last = (int((row.clamp(min=0) & end).nonzero()) for end in (Spans.START, Spans.END))
        assert window.between(first, last) == (answers[0][0] if answers else "")
        assert (first == 0) == (not answers)


def test_where_all_texts_have_answers_none_is_no_answer(tmp_path: Path) -> None:
    made = task(saved(tmp_path, [row for row in rows() if row["answers"]["text"]]))
    train = made.encode(made.load(), load_tokenizer(tiny.MODEL)).splits["train"]
    assert {int(target[0]) for target in train.labels} == {IGNORED}


def test_the_loss_is_that_of_transformers_where_every_token_may_be_it() -> None:
    """The mean of two cross-entropies; tokens that cannot be it count for nothing."""
    torch.manual_seed(0)
    outputs = torch.randn(3, 2, 7)
    starts, ends = torch.tensor([1, 0, 6]), torch.tensor([3, 0, 6])
    targets = torch.zeros(3, 7, dtype=torch.long)
    for row in range(3):
        targets[row, starts[row]] |= Spans.START
        targets[row, ends[row]] |= Spans.END
    expected = (
        F.cross_entropy(outputs[:, 0], starts, reduction="none")
        + F.cross_entropy(outputs[:, 1], ends, reduction="none")
    ) / 2
    assert torch.allclose(Spans(9).losses(outputs, targets), expected)
    wider = F.pad(targets, (0, 4), value=IGNORED)
    filled = torch.cat([outputs, torch.randn(3, 2, 4)], -1)
    assert torch.allclose(Spans(9).losses(filled, wider), expected)
    smooth = F.cross_entropy(outputs[:, 0], starts, label_smoothing=0.1, reduction="none")
    smooth += F.cross_entropy(outputs[:, 1], ends, label_smoothing=0.1, reduction="none")
    assert torch.allclose(Spans(9).losses(filled, wider, 0.1), smooth / 2)


def test_the_best_span_is_one() -> None:
    """Its end is not before its beginning, nor further than may be, nor where none may be."""
    outputs = torch.full((1, 2, 6), -9.0)
    outputs[0, 0, 4], outputs[0, 0, 1], outputs[0, 1, 2], outputs[0, 1, 5] = 5.0, 4.0, 6.0, 1.0
    targets = torch.zeros(1, 6, dtype=torch.long)
    assert Spans(9).rows(outputs, targets) == [(1, 2, 10.0, -18.0)]
    assert Spans(1).rows(outputs, targets) == [(2, 2, -3.0, -18.0)]
    targets[0, 2] = IGNORED
    assert Spans(9).rows(outputs, targets) == [(4, 5, 6.0, -18.0)]
    outputs[0, :, 0] = 20.0
    assert Spans(9).rows(outputs, targets) == [(4, 5, 6.0, 40.0)]
    targets[0, 0] = IGNORED
    assert Spans(9).rows(outputs, targets) == [(4, 5, 6.0, -torch.inf)]


def test_scores_are_those_of_squad() -> None:
    context = "The Film, by a Hill"
    offsets = [(0, 3), (4, 8), (8, 9), (10, 12), (13, 14), (15, 19)]
    windows = [
        Window(0, context, offsets, ["film"]),
        Window(1, context, offsets, ["by Hill", "Mill"]),
        Window(2, context, [(0, 0), *offsets], [], may_lack=True),
    ]
    spans = [Span(0, 2, 1.0, -9.0), Span(5, 5, 1.0, -9.0), Span(1, 2, 1.0, 1.5)]
    measured = task("x.csv").measure((), Judged([], spans, 0.5, windows))
    assert measured == {
        "loss": 0.5,
        "exact_match": pytest.approx(2 / 3),
        "f1": pytest.approx((1 + 2 / 3 + 1) / 3),
    }


def test_a_text_is_answered_once_from_all_of_its_windows() -> None:
    """The likeliest span of any; none where it may be and every window rates that higher."""

    def answer(*spans: Span, may_lack: bool) -> str:
        windows = [Window(7, f"{n}", [(0, 1)], ["1"], may_lack) for n in range(len(spans))]
        ((said, right),) = answered(windows, spans)
        assert right == ["1"]
        return said

    spans = Span(0, 0, 2.0, 9.0), Span(0, 0, 4.0, 5.0), Span(0, 0, 3.0, 6.0)
    assert answer(*spans, may_lack=False) == "1"
    assert answer(*spans, may_lack=True) == ""
    assert answer(Span(0, 0, 2.0, 9.0), Span(0, 0, 4.0, 3.0), may_lack=True) == "1"


@pytest.mark.parametrize("lacks", [False, True])
def test_a_long_text_is_read_in_windows(lacks: bool, tmp_path: Path) -> None:
    """Each piece of it is in one, and an answer is marked in every window that holds it whole."""
    long = [{**row, "context": " ".join([row["context"], *TEXTS[:6]])} for row in rows()]
    given = [row for row in long if lacks or row["answers"]["text"]]
    made = task(saved(tmp_path, given), max_length=24, doc_stride=4)
    data = made.load()
    train = made.encode(data, load_tokenizer(tiny.MODEL)).splits["train"]
    assert len(train) > 2 * len(data.train)
    assert max(train.lengths) == 24
    assert train.cut.extent["examples"] == len(data.train)
    assert train.cut.extent["cut_tokens"] == 0
    covered: dict[int, set[int]] = {}
    n_marked = 0
    for window, target in zip(train.references, train.labels, strict=True):
        covered.setdefault(window.number, set()).update(
            i for o in window.offsets for i in range(*o)
        )
        marks = target.clamp(min=0)
        first, last = (int((marks & end).nonzero()) for end in (Spans.START, Spans.END))
        whole = any(a == window.context.find("19") for a, _ in window.offsets)
        assert window.between(first, last) in ("", *window.answers)
        assert (first > 0) == bool(window.answers and whole)
        n_marked += first > 0
        assert window.may_lack == lacks
    assert n_marked >= sum(label != "[]" for label in data.train["label"][:])
    for number, context in enumerate(data.train["text_pair"][:]):
        assert {i for i, c in enumerate(context) if c != " "} <= covered[number]


@pytest.mark.parametrize("answer", ["cafe\u0301", "\u200bparis\u200b", "\u0939\u093f\u0902"])
@pytest.mark.parametrize("context", ["{}", "in the {} near the sea", "near the sea {}"])
def test_characters_that_make_no_token_end_no_answer(
    answer: str, context: str, tmp_path: Path
) -> None:
    text = context.format(answer)
    found = {"text": [answer], "answer_start": [text.index(answer)]}
    lacking = {"question": "why", "context": "no", "answers": {"text": [""], "answer_start": [0]}}
    given = [{"question": "where", "context": text, "answers": found}, lacking]
    table = Dataset.from_list(given * 2)
    for split in ("train", "validation", "test"):
        table.to_parquet(tmp_path / f"{split}.parquet")
    made = task(str(tmp_path))
    train = made.encode(made.load(), load_tokenizer(tiny.MODEL)).splits["train"]
    for target, window in zip(train.labels, train.references, strict=True):
        assert window.may_lack
        assert bool(target[0] == 0) == bool(window.answers)
        assert int((target > 0).sum()) > 0


def test_early_evaluations_take_whole_questions(tmp_path: Path) -> None:
    """Of whose windows one has the answer; what they count are questions."""
    long = [{**row, "context": " ".join([row["context"], *TEXTS[:6]])} for row in rows()]
    made = task(saved(tmp_path, long), max_length=24, doc_stride=4, validation_fraction=0.3)
    split = made.encode(made.load(), load_tokenizer(tiny.MODEL)).splits["validation"]
    assert len(split) > 3 * 9
    for n in (2, 5, 9, 100):
        chosen = split.evenly(n)
        numbers = split.units[chosen].unique()
        assert len(numbers) == split.n_units(chosen) == min(n, 9)
        assert len(chosen) == sum(int((split.units == number).sum()) for number in numbers)


def test_a_row_on_which_nothing_can_be_an_answer_counts_for_nothing() -> None:
    outputs = torch.randn(1, 2, 5, requires_grad=True)
    loss = Spans(9).losses(outputs, torch.full((1, 5), IGNORED), 0.1)
    loss.sum().backward()
    assert loss.tolist() == [0.0]
    assert outputs.grad is not None
    assert outputs.grad.isfinite().all()


def test_a_long_question_leaves_less_to_share(tmp_path: Path) -> None:
    given = [*rows(), {**rows()[0], "question": "when was the film " * 5}]
    made = task(saved(tmp_path, given), max_length=32)
    assert made.encode(made.load(), load_tokenizer(tiny.MODEL)).splits["train"].extent["examples"]


def test_a_question_leaves_room_for_a_text(tmp_path: Path) -> None:
    made = task(saved(tmp_path, rows()), max_length=10, doc_stride=5)
    reason = "'when was the film' takes 7 of 10 tokens and leaves no room .* windows share 5"
    with pytest.raises(StudyError, match=f"^task.max_length: {reason}"):
        made.encode(made.load(), load_tokenizer(tiny.MODEL))


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        ({"text": ["1950"], "answer_start": [2]}, "the answer '1950' is not in the text at 2"),
        ("nowhere", "the answer 'nowhere' is not in the text at -1"),
        (7, "answers must be texts, got 7"),
    ],
)
def test_answers_that_are_none_are_told(answers: Any, reason: str, tmp_path: Path) -> None:
    row = {"question": "when", "context": "in 1950", "answers": answers}
    with pytest.raises(StudyError, match=f"^task.data: .*first row 1: {reason}"):
        task(saved(tmp_path, [row])).load()


def test_places_may_be_written_as_text(tmp_path: Path) -> None:
    row = {"question": "when", "answer": "1950", "answer_start": "3"}
    given = [{**row, "context": f"in 1950, {i}"} for i in range(9)]
    assert json.loads(task(saved(tmp_path, given)).load().test[0]["label"]) == [["1950", 3]]


def test_a_study_ends_in_exports_that_answer_the_same(tmp_path: Path) -> None:
    task = {"type": "question-answering", "data": saved(tmp_path, rows())}
    outcome = autopeft.run(tiny.of_ranks(tmp_path, "spans", task, "f1", epochs=8.0))
    best = outcome.choose("best").trial
    assert best.values["f1"] > 0.6
    tokenizer = tf.AutoTokenizer.from_pretrained(tiny.folder_of(tiny.MODEL))
    tokens = tokenizer("when was the film", TEXTS[3], return_tensors="pt")
    starts, ends = {}, {}
    auto, base = tf.AutoModelForQuestionAnswering, tiny.folder_of(tiny.MODEL)
    for form, model in exported(outcome, best.number, auto, base, tmp_path):
        with torch.no_grad():
            out = model(**tokens)
        starts[form], ends[form] = out.start_logits, out.end_logits
    for logits in (starts, ends):
        assert torch.allclose(logits["native"], logits["peft"], atol=1e-5)
        assert torch.allclose(logits["native"], logits["merged"], atol=1e-4)
