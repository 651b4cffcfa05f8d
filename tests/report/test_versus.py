from __future__ import annotations

from dataclasses import replace

import pytest

from autopeft.core.errors import StudyError
from autopeft.objective import pareto
from autopeft.report.front import Front
from autopeft.report.versus import versus
from tests.report.trials import ACCURACY, MEMORY, PARAMS, STUDY, complete

BOTH = (ACCURACY, PARAMS)
FIRST = [complete(0, 0.8, 1000), complete(1, 0.7, 100), complete(2, 0.6, 500)]
SECOND = [complete(0, 0.8, 900), complete(1, 0.65, 50), complete(2, 0.9, 5000)]


def test_each_side_has_its_front_and_what_leads_on_it() -> None:
    both = versus(("a", FIRST, BOTH), ("b", SECOND, BOTH))
    assert [t.number for t in both.first.front.trials] == [0, 1]
    assert [t.number for t in both.first.leading] == [1]
    assert [t.number for t in both.second.leading] == [2, 0, 1]
    assert both.first.hypervolume == Front.of(FIRST, BOTH).hypervolume
    assert both.first.best(ACCURACY) == FIRST[0]
    assert both.second.best(PARAMS) == SECOND[1]
    assert (both.first.n_trials, both.first.seconds) == (3, 36.0)
    assert both.sentence == (
        f"b is ahead, with a hypervolume of {both.second.hypervolume:.4f} against "
        f"{both.first.hypervolume:.4f}; 1 of the 2 trials on the front of a are no better than "
        "its own"
    )
    told = both.to_dict()
    assert [side["study"] for side in told["studies"]] == ["a", "b"]
    assert told["studies"][0]["best"]["trainable_params"] == {"trial": 1, "value": 100}
    assert told["studies"][0]["leading"] == [1]


def test_a_study_is_not_ahead_of_itself() -> None:
    both = versus(("a", STUDY, BOTH), ("b", STUDY, BOTH))
    assert both.first.leading == both.second.leading == ()
    assert both.sentence == "neither is ahead: a and b have the same hypervolume"


def test_the_corner_is_the_worse_of_both_references() -> None:
    strict = replace(ACCURACY, reference=0.75)
    both = versus(("a", FIRST, BOTH), ("b", SECOND, (PARAMS, strict)))
    assert both.second.front.objectives == BOTH
    rows = [[-t.values["accuracy"], PARAMS.loss(t.values["trainable_params"])] for t in SECOND]
    assert both.second.hypervolume == pareto.hypervolume(rows, [ACCURACY.worst, PARAMS.worst])


def test_references_are_compared_as_users_give_them() -> None:
    """On the scale of the first, whatever that of the second is."""
    linear = replace(PARAMS, scale="linear", reference=1e4)
    both = versus(("a", FIRST, BOTH), ("b", SECOND, (ACCURACY, linear)))
    assert both.first.front.objectives == BOTH
    assert versus(("a", FIRST, (ACCURACY, linear)), ("b", SECOND, BOTH)).first.hypervolume > 0


def test_names_are_told_as_they_are() -> None:
    with pytest.raises(StudyError, match=r"a\{0\}b\{x\} is to maximize accuracy"):
        versus(("a{0}b{x}", FIRST, BOTH), ("b", SECOND, (ACCURACY, MEMORY)))


def test_what_cannot_be_compared_is_said() -> None:
    reason = "a is to maximize accuracy, minimize trainable_params, b is to maximize accuracy"
    with pytest.raises(StudyError, match=f"objectives: cannot be compared: {reason}"):
        versus(("a", FIRST, BOTH), ("b", SECOND, (ACCURACY, MEMORY)))
    with pytest.raises(StudyError, match="b: has no complete trial"):
        versus(("a", FIRST, BOTH), ("b", STUDY[7:], BOTH))
