from __future__ import annotations

import itertools

import pytest

from autopeft.core.errors import StudyError
from autopeft.objective.objective import Objective
from autopeft.report import Front, choose, pick
from tests.report.trials import ACCURACY, MEMORY, OBJECTIVES, PARAMS, STUDY, again, complete

FRONT = Front.of(STUDY, OBJECTIVES)


def test_best_has_the_best_learned_value() -> None:
    assert pick(FRONT, "best").number == 3
    assert pick(Front.of(STUDY, (PARAMS, MEMORY, ACCURACY)), "best").number == 3


@pytest.mark.parametrize(
    ("within", "number"),
    [(None, 4), ("1%", 4), ("0.1%", 3), ("0%", 3), (0.006, 4), ("0.004", 3), ("10%", 5), (1, 2)],
)
def test_cheapest_lies_within_the_slack(within: str | float | None, number: int) -> None:
    assert pick(FRONT, "cheapest", within).number == number


def test_slack_of_a_minimised_objective() -> None:
    loss = Objective("accuracy", "minimize", reference=1.0)
    records = [complete(0, 0.200, 90), complete(1, 0.201, 60), complete(2, 0.3, 10)]
    front = Front.of(records, (loss, PARAMS))
    assert pick(front, "cheapest", "1%").number == 1
    assert pick(front, "cheapest", "0.1%").number == 0


def test_knee_is_where_more_parameters_stop_paying() -> None:
    curve = {10: 0.5, 100: 0.7, 1_000: 0.88, 10_000: 0.89, 100_000: 0.9}
    records = [complete(i, a, p) for i, (p, a) in enumerate(curve.items())]
    for order in itertools.permutations(records):
        assert pick(Front.of(order, (ACCURACY, PARAMS)), "knee").number == 2


def test_knee_places_something_if_any_trial_does() -> None:
    assert pick(FRONT).number == 4
    alone = Front.of(STUDY[2:3], OBJECTIVES)
    assert pick(alone).number == 2


def test_nothing_to_pick() -> None:
    with pytest.raises(StudyError, match="no trial is complete"):
        pick(Front.of(STUDY[7:], OBJECTIVES))


@pytest.mark.parametrize("within", ["1 percent", "-1%", "nan", "%", "inf"])
def test_bad_slack(within: str) -> None:
    with pytest.raises(StudyError, match=r"within: must be a percentage such as 1%"):
        pick(FRONT, "cheapest", within)


def test_unknown_rule_names_the_nearest() -> None:
    with pytest.raises(StudyError, match=r"unknown rule 'nee'.*did you mean 'knee'"):
        pick(FRONT, "nee")


def test_rules_need_their_objectives() -> None:
    with pytest.raises(StudyError, match="none is learned"):
        pick(Front.of(STUDY, (PARAMS,)), "best")
    with pytest.raises(StudyError, match="no objective is known before training"):
        pick(Front.of(STUDY, (ACCURACY,)), "cheapest")


def test_a_choice_gives_its_reason() -> None:
    single = "(one training each, on the validation split)"
    assert choose(FRONT, "best").reason == f"trial 3 has the best accuracy, 0.8500 {single}"
    cheapest = "trial 4 has the least trainable params, 60,000, of those whose accuracy is within"
    assert choose(FRONT, "cheapest").reason == f"{cheapest} one point of the best, 0.8500 {single}"
    assert f"{cheapest} 2% of" in choose(FRONT, "cheapest", "2%").reason
    bend = "is where the front of accuracy and trainable params and peak memory bends most"
    assert choose(FRONT).reason == f"trial 4 {bend} {single}"


def test_choices_are_made_by_means_of_fresh_seeds() -> None:
    """Trial 3 was lucky in the search; the luck of the test split has no say."""
    fresh = [again(12, 3, 0.80, 0.99), again(13, 3, 0.81, 0.99), again(14, 4, 0.82, 0.7)]
    choice = choose(Front.of([*STUDY, *fresh], OBJECTIVES), "best")
    means = "(one fresh training each, on the validation split)"
    assert choice.reason == f"trial 4 has the best accuracy, 0.8200 {means}"
