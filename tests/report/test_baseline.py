from __future__ import annotations

import pytest

from autopeft.core.errors import StudyError
from autopeft.objective.objective import Objective
from autopeft.report import compare
from tests.report.trials import ACCURACY, OBJECTIVES, PARAMS, STUDY, complete


def test_each_baseline_against_what_costs_no_more() -> None:
    lora, pfeiffer, head = compare(STUDY, OBJECTIVES)
    assert [c.baseline.baseline for c in (lora, pfeiffer, head)] == [
        "lora",
        "pfeiffer",
        "head-only",
    ]
    assert lora.rival == STUDY[4]
    assert lora.gain == pytest.approx(0.025)
    assert lora.cheaper == STUDY[4]
    assert pfeiffer.gain == pytest.approx(0.045)
    assert head.rival is head.gain is None
    assert head.cheaper == STUDY[5]


def test_a_baseline_may_win() -> None:
    records = [complete(0, 0.9, 100, baseline="lora"), complete(1, 0.8, 50)]
    (only,) = compare(records, OBJECTIVES)
    assert only.gain == pytest.approx(-0.1)
    assert only.cheaper is None


def test_gain_of_a_minimised_objective_is_positive_for_less() -> None:
    loss = Objective("accuracy", "minimize", reference=1.0)
    records = [complete(0, 0.9, 100, baseline="lora"), complete(1, 0.8, 50)]
    assert compare(records, (loss, PARAMS))[0].gain == pytest.approx(0.1)


def test_baselines_do_not_compete_with_each_other() -> None:
    records = [complete(0, 0.8, 100, baseline="a"), complete(1, 0.9, 50, baseline="b")]
    assert [c.rival for c in compare(records, OBJECTIVES)] == [None, None]


def test_comparison_needs_both_kinds_of_objective() -> None:
    with pytest.raises(StudyError):
        compare(STUDY, (ACCURACY,))
