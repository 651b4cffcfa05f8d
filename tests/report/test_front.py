from __future__ import annotations

import itertools
import json
import math
import random
from dataclasses import replace

import pytest

from autopeft.core.config import PeftConfig
from autopeft.core.errors import StudyError
from autopeft.objective.objective import Objective
from autopeft.report import Front, pick
from tests.report.trials import ACCURACY, MEMORY, OBJECTIVES, PARAMS, STUDY, complete

FRONT = Front.of(STUDY, OBJECTIVES)


def dominates(a, b) -> bool:
    x = [o.loss(a.values[o.name]) for o in OBJECTIVES]
    y = [o.loss(b.values[o.name]) for o in OBJECTIVES]
    return x != y and all(i <= j for i, j in zip(x, y, strict=True))


def test_front_is_what_nothing_dominates_best_first() -> None:
    finished = [r for r in STUDY if r.state == "complete"]
    best = {r.number for r in finished if not any(dominates(o, r) for o in finished)}
    assert {t.number for t in FRONT.trials} == best
    assert [t.number for t in FRONT.trials] == [3, 4, 5, 2]


def test_front_does_not_depend_on_the_order_of_records() -> None:
    rng = random.Random(0)
    for _ in range(20):
        assert Front.of(rng.sample(STUDY, len(STUDY)), OBJECTIVES) == FRONT


def test_equal_trials_both_stay_and_broken_values_go() -> None:
    twins = [complete(0, 0.8, 10), complete(1, 0.8, 10)]
    broken = complete(2, math.nan, 5)
    lacking = replace(complete(3, 0.9, 5), values={"accuracy": 0.9})
    front = Front.of([*twins, broken, lacking], (ACCURACY, PARAMS))
    assert [t.number for t in front.trials] == [0, 1]


def test_directions_are_the_objectives_own() -> None:
    loss = Objective("accuracy", "minimize", reference=1.0)
    front = Front.of([complete(0, 0.2, 10), complete(1, 0.8, 10)], (loss, PARAMS))
    assert [t.number for t in front.trials] == [0]


def test_json_form() -> None:
    document = json.loads(json.dumps(FRONT.to_dict()))
    assert [o["name"] for o in document["objectives"]] == [
        "accuracy",
        "trainable_params",
        "peak_memory",
    ]
    first = document["front"][0]
    assert first["trial"] == 3
    assert first["values"] == {
        "accuracy": 0.85,
        "trainable_params": 300_000,
        "peak_memory": 1_400_000_000,
    }
    assert isinstance(first["values"]["trainable_params"], int)
    assert PeftConfig.from_dict(first["config"]) == STUDY[3].config


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
