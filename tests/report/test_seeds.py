from __future__ import annotations

from dataclasses import replace

import pytest

from autopeft.core.report import Report
from autopeft.report.chart import chart
from autopeft.report.front import Front
from autopeft.report.page import body
from autopeft.report.seeds import folded
from autopeft.report.value import valued
from autopeft.study.trial import TrialRecord
from tests.report.trials import ACCURACY, OBJECTIVES, PARAMS, STUDY, again

REPEATED = (
    *STUDY,
    again(12, 3, 0.82, 0.80),
    again(13, 3, 0.84, 0.81),
    again(14, 3, 0.83, 0.82),
    again(15, 4, 0.825, 0.79),
)


def test_means_and_margins() -> None:
    """0.82, 0.84, 0.83, without the 0.85 of the search: deviation 0.01, t of 2 degrees 4.3027."""
    found = folded(REPEATED)
    assert [record.number for record in found] == [record.number for record in STUDY]
    third = found[3]
    assert third.values["accuracy"] == pytest.approx(0.83)
    assert third.test["accuracy"] == pytest.approx(0.81)
    assert third.n_seeds == 3
    assert third.margins == {"accuracy": pytest.approx(4.30265 * 0.01 / 3**0.5, rel=1e-4)}
    assert third.test_margins == {"accuracy": pytest.approx(4.30265 * 0.01 / 3**0.5, rel=1e-4)}
    assert (found[4].n_seeds, found[4].margins) == (1, {})
    assert found[0] is STUDY[0]
    assert folded(found) == found


def lasting(epochs: float, record: TrialRecord) -> TrialRecord:
    return replace(record, reports=(Report(9, epochs, {}),))


@pytest.mark.parametrize(("length", "mean"), [(3.0, 0.6), (6.0, 0.85)])
def test_the_length_counts_that_most_trials_were_repeated_with(length: float, mean: float) -> None:
    """Trial 3 was trained with both."""
    own = [(12, 3.0, 0.6), (13, 6.0, 0.8), (14, 6.0, 0.9)]
    trials = [lasting(epochs, again(number, 3, value, value)) for number, epochs, value in own]
    found = folded([*STUDY, *trials, lasting(length, again(15, 4, 0.7, 0.7))])
    assert [record.number for record in found] == [record.number for record in STUDY]
    assert found[3].values["accuracy"] == pytest.approx(mean)
    assert [r.number for r in found if r.n_seeds] == [3, 4]
    assert folded([*STUDY, *trials])[3].values["accuracy"] == pytest.approx(0.85)


def test_without_repeats_nothing_changes() -> None:
    assert folded(STUDY) == list(STUDY)


def test_a_repeat_that_failed_stays_and_adds_nothing() -> None:
    failed = replace(again(12, 3, 0.1, 0.1), state="failed", values={}, test={})
    assert folded([*STUDY, failed]) == [*STUDY, failed]


def test_the_front_is_that_of_the_means_of_what_was_repeated() -> None:
    """Trial 3 is on the front by luck, trial 5 by a single training."""
    assert [t.number for t in Front.of(STUDY, OBJECTIVES).trials] == [3, 4, 5, 2]
    poor = [again(12, 3, 0.7, 0.7), again(13, 4, 0.84, 0.83)]
    assert [t.number for t in Front.of([*STUDY, *poor], OBJECTIVES).trials] == [4]
    chart_of = chart([*STUDY, *poor], (ACCURACY, PARAMS))
    assert chart_of.line == ((60_000, 0.84),)
    assert [dot.trial.number for dot in chart_of.dots if dot.kind == "front"] == [4]


def test_json_of_the_front_tells_seeds_margins_and_test_values() -> None:
    third, fourth = Front.of(REPEATED, OBJECTIVES).to_dict()["front"]
    assert (third["trial"], third["seeds"]) == (3, 3)
    assert third["margins"] == {"accuracy": pytest.approx(4.30265 * 0.01 / 3**0.5, rel=1e-4)}
    assert third["test"]["values"] == {"accuracy": pytest.approx(0.81)}
    assert fourth["test"] == {"values": {"accuracy": 0.79}, "margins": {}}
    assert "seeds" not in Front.of(STUDY, OBJECTIVES).to_dict()["front"][0]


def test_margins_are_shown() -> None:
    third = folded(REPEATED)[3]
    assert valued(ACCURACY, third) == "0.8300 ± 0.025"
    assert valued(PARAMS, third) == "300,000"
    page = body("study", {}, REPEATED, OBJECTIVES, ["study"])
    assert "0.8300 ± 0.025" in page
    assert "3 again" in page
