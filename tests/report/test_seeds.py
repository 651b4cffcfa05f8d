from __future__ import annotations

from dataclasses import replace

import pytest

from autopeft.report.front import Front
from autopeft.report.page import render
from autopeft.report.seeds import folded
from autopeft.report.value import valued
from autopeft.study.trial import TrialRecord
from tests.report.trials import ACCURACY, OBJECTIVES, PARAMS, STUDY, complete


def again(number: int, of: int, accuracy: float) -> TrialRecord:
    """Trial `of` once more."""
    values = {**STUDY[of].values, "accuracy": accuracy}
    return replace(STUDY[of], number=number, values=values, repeat_of=of, baseline=None)


REPEATED = (*STUDY, again(12, 3, 0.83), again(13, 3, 0.84), again(14, 4, 0.825))


def test_means_and_margins() -> None:
    """Three values 0.85, 0.83, 0.84: mean 0.84, deviation 0.01, t of 2 degrees 4.3027."""
    found = folded(REPEATED)
    assert [record.number for record in found] == [record.number for record in STUDY]
    third = found[3]
    assert third.values["accuracy"] == pytest.approx(0.84)
    assert third.n_seeds == 3
    assert third.margins == {"accuracy": pytest.approx(4.30265 * 0.01 / 3**0.5, rel=1e-4)}
    assert found[4].margins["accuracy"] == pytest.approx(12.7062 * 0.01, rel=1e-4)
    assert found[0] is STUDY[0]
    assert folded(found) == found


def test_without_repeats_nothing_changes() -> None:
    assert folded(STUDY) == list(STUDY)


def test_a_repeat_that_failed_stays_and_adds_nothing() -> None:
    failed = replace(again(12, 3, 0.1), state="failed", values={})
    assert folded([*STUDY, failed]) == [*STUDY, failed]


def test_the_front_is_that_of_the_means() -> None:
    """A lucky trial that further seeds do not confirm leaves the front."""
    lucky = complete(12, 0.9, 300_000, 1.4e9)
    poor = replace(lucky, number=13, repeat_of=12)
    poor = replace(poor, values={**lucky.values, "accuracy": 0.7})
    numbers = [t.number for t in Front.of([*STUDY, lucky], OBJECTIVES).trials]
    assert 12 in numbers
    front = Front.of([*STUDY, lucky, poor], OBJECTIVES)
    assert 12 not in [t.number for t in front.trials]
    told = Front.of(REPEATED, OBJECTIVES).to_dict()["front"]
    by_number = {each["trial"]: each for each in told}
    assert by_number[4]["seeds"] == 2
    assert by_number[4]["margins"] == {"accuracy": pytest.approx(0.127062, rel=1e-4)}
    assert "seeds" not in by_number[2]


def test_margins_are_shown() -> None:
    third = folded(REPEATED)[3]
    assert valued(ACCURACY, third) == "0.8400 ± 0.025"
    assert valued(PARAMS, third) == "300,000"
    page = render("study", {}, REPEATED, OBJECTIVES)
    assert "0.8350 ± 0.13" in page
    assert "3 again" in page
