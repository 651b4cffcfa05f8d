from __future__ import annotations

import json
import math
import random
from dataclasses import replace

from autopeft.core.config import PeftConfig
from autopeft.objective.objective import Objective
from autopeft.report import Front
from tests.report.trials import ACCURACY, OBJECTIVES, PARAMS, STUDY, complete

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
