from __future__ import annotations

import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from autopeft.core.config import PeftConfig, Placement
from autopeft.core.report import MEASURED
from autopeft.report import Front, hypervolumes, write_report
from autopeft.report.page import MOST
from tests.report.test_learned import many
from tests.report.trials import ACCURACY, OBJECTIVES, PARAMS, STUDY, again, complete

EVIL = "<img src=x onerror=alert(1)>&\"'"
VOID = {"meta", "br", "link", "input"}


class Reader(HTMLParser):
    """Collects the text and the tags of a page, and checks that tags close in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in {"script", "style"}:
            self.text += f"{data} "


def page(tmp_path: Path, records=STUDY, objectives=OBJECTIVES, **facts: object) -> Reader:
    return Reader(write_report("study", facts, records, objectives, tmp_path).read_text("utf-8"))


def test_page_says_what_happened(tmp_path: Path) -> None:
    text = page(tmp_path, model="MiniLM", task="movies").text
    for part in (
        "MiniLM",
        "movies",
        "7 complete, 1 stopped, 1 failed, 1 rejected, 1 running, 1 waiting",
        "one training each, on the validation split",
        "No baseline was trained again with fresh seeds.",
        "adapter/ffn 64 @4-5 · lora[q,v] r16 @0-5",
        "learning_rate 0.001",
        "300,000",
        "1.4 GB",
        "out of memory <b>&",
        "peak_memory exceeds 16 GB",
        "knee",
    ):
        assert part in text, part


def test_memory_is_told_where_a_gpu_was_watched(tmp_path: Path) -> None:
    assert "Memory" not in page(tmp_path).text.split("All trials")[0].split("Learning curves")[1]
    watched = [
        replace(
            record,
            reports=(
                *record.reports[:-1],
                replace(last, metrics={**last.metrics, MEASURED: 1.1e9}),
            ),
        )
        if record.known.get("peak_memory") == 1e9 and (last := record.reports[-1])
        else record
        for record in (r for r in STUDY if r.reports)
    ]
    told = page(tmp_path, watched).text
    assert re.search(r"Memory +\d trainings: 10.0% apart in the middle, 10.0% at most", told)


def test_every_trial_has_a_row(tmp_path: Path) -> None:
    assert rows(page(tmp_path)) == [str(record.number) for record in STUDY]


def rows(reader: Reader) -> list[str | None]:
    """The trials of the table of all of them."""
    return [
        attrs["data-trial"] for tag, attrs in reader.tags if tag == "tr" and "data-trial" in attrs
    ]


def test_page_compares_with_baselines_on_the_test_split(tmp_path: Path) -> None:
    fresh = [again(12 + i, 4, 0.84, t) for i, t in enumerate((0.83, 0.84))]
    fresh += [again(14 + i, 0, 0.81, t) for i, t in enumerate((0.80, 0.83))]
    fresh += [again(16, 1, 0.8, 0.7), again(17, 1, 0.8, 0.7)]
    reader = page(tmp_path, (*STUDY, *fresh))
    for part in (
        "means of 2 fresh trainings each, on the validation split; no trial was chosen by its test",
        "trial 4 is as good as lora (+2.0 ± ",
        "trial 4 beats pfeiffer by 13.5 ± 6.4 points with 0.7 times its parameters (2 seeds)",
        "test accuracy ↑",
        "0.8350 ± 0.064",
    ):
        assert part in reader.text, part
    assert len(rows(reader)) == len(STUDY) + len(fresh)
    assert [a["class"] for t, a in reader.tags if t == "li"] == ["", "good"]


def test_page_tells_what_was_learned(tmp_path: Path) -> None:
    reader = page(tmp_path, many())
    assert "adapter in the upper half gains 3." in reader.text
    assert "95 % intervals" in reader.text
    assert "Too few trials have ended to tell." in page(tmp_path).text


def test_page_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    for _, attributes in page(tmp_path).tags:
        assert "src" not in attributes
        assert "href" not in attributes


def test_every_text_is_escaped(tmp_path: Path) -> None:
    config = PeftConfig.of([Placement.of(EVIL, [0], {EVIL: EVIL})], {EVIL: EVIL})
    records = [
        replace(STUDY[0], baseline=EVIL, config=config),
        replace(STUDY[4], config=config),
        *(replace(record, error=EVIL) for record in STUDY[1:]),
    ]
    objectives = (ACCURACY, replace(PARAMS, name="trainable_params", unit=EVIL))
    reader = Reader(
        write_report(EVIL, {EVIL: EVIL}, records, objectives, tmp_path).read_text("utf-8")
    )
    assert not any(tag == "img" for tag, _ in reader.tags)
    assert EVIL in reader.text


@pytest.mark.parametrize("objectives", [OBJECTIVES, (ACCURACY,), (PARAMS,)])
@pytest.mark.parametrize("records", [(), STUDY[:1], STUDY[7:], STUDY[8:]])
def test_any_state_of_a_study_has_a_page(records, objectives, tmp_path: Path) -> None:
    assert "All trials" in page(tmp_path, records, objectives).text


def test_page_is_a_function_of_its_arguments(tmp_path: Path) -> None:
    texts = [write_report("s", {}, STUDY, OBJECTIVES, tmp_path / n).read_text() for n in "ab"]
    assert texts[0] == texts[1]


def test_hypervolume_grows_with_complete_trials_only() -> None:
    records = [complete(0, 0.75, 99), STUDY[7], complete(2, 0.5, 9), complete(1, 1.0, 999)]
    volumes = hypervolumes(records, (ACCURACY, PARAMS))
    top = math.log10(1e6 + 1)
    first = 0.25 * (top - 2)
    both = first + 0.25 * (top - 3)
    assert volumes == pytest.approx([first, both, both, both])
    assert Front.of(records, (ACCURACY, PARAMS)).hypervolume == pytest.approx(both)
    assert Front.of([], (ACCURACY, PARAMS)).hypervolume == 0


def test_a_page_of_many_trials_holds_the_front_what_is_compared_and_the_latest(
    tmp_path: Path,
) -> None:
    many = [complete(100 + i, 0.6, 5e5 + i) for i in range(MOST)]
    repeat = replace(again(100 + MOST, 4, 0.84, 0.83), known=STUDY[4].known)
    reader = page(tmp_path, (*STUDY, *many, repeat))
    assert f"{MOST:,} of {len(STUDY) + MOST + 1:,} trials are drawn and listed" in reader.text
    listed = re.sub(r"\s+", " ", reader.text.split("All trials")[1])
    assert "0 lora complete" in listed
    assert f" {99 + MOST} complete" in listed
    assert f" {100 + MOST} 4 again complete" in listed
    assert " 100 complete" not in listed


def test_hypervolumes_are_those_of_all_trials_so_far() -> None:
    rng = np.random.default_rng(0)
    records = [complete(i, rng.uniform(0.5, 1), rng.uniform(1, 1e6)) for i in range(60)]
    volumes = hypervolumes(records, (ACCURACY, PARAMS))
    assert volumes == pytest.approx(
        [Front.of(records[: i + 1], (ACCURACY, PARAMS)).hypervolume for i in range(60)]
    )
