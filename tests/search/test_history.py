from __future__ import annotations

import math
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from autopeft.core.config import PeftConfig
from autopeft.search import history, promise
from autopeft.search.history import read_history
from tests.contracts import sampler as kit

SPACE, OBJECTIVES = kit.problem().space, kit.problem().objectives
CONFIGS = list(
    {c.key: c for c in (SPACE.draw(np.random.default_rng(i)).config for i in range(20))}.values()
)


def trial(number: int, state: TrialState, values: Any = None, **attributes: Any) -> FrozenTrial:
    attributes = {"config": CONFIGS[number].to_dict(), **attributes}
    made = optuna.create_trial(state=state, values=values, user_attrs=attributes)
    made.number = number
    return made


def reports(*accuracies: float) -> list[dict[str, Any]]:
    return [
        {"step": i, "fidelity": float(i + 1), "metrics": {"accuracy": a}}
        for i, a in enumerate(accuracies)
    ]


def test_states() -> None:
    trials = [
        trial(0, TrialState.COMPLETE, [0.8, 999.0]),
        trial(1, TrialState.RUNNING, known={"trainable_params": 99.0}),
        trial(2, TrialState.FAIL),
        trial(3, TrialState.PRUNED, rejected="too big"),
        trial(4, TrialState.WAITING),
        trial(5, TrialState.RUNNING, config=None),
        trial(6, TrialState.COMPLETE, [math.inf, 9.0]),
        trial(7, TrialState.FAIL, config={"nonsense": 1}),
    ]
    read = read_history(trials[::-1], SPACE, OBJECTIVES)
    assert [o.config for o in read.observed] == [CONFIGS[0]]
    assert read.observed[0].losses == pytest.approx((-0.8, 3.0))
    assert [o.config for o in read.pending] == [CONFIGS[1], CONFIGS[4]]
    assert read.pending[0].losses == pytest.approx((math.nan, 2.0), nan_ok=True)
    assert all(o.doubts == (0.0, 0.0) for o in (*read.observed, *read.pending))
    assert read.seen == {CONFIGS[i].key for i in (0, 1, 2, 3, 4, 6)}


def test_a_trial_that_diverged_is_as_bad_as_the_worst() -> None:
    trials = [
        trial(0, TrialState.COMPLETE, [0.8, 999.0]),
        trial(1, TrialState.COMPLETE, [0.6, 999.0]),
        trial(2, TrialState.FAIL, diverged=True, known={"trainable_params": 99.0}),
    ]
    read = read_history(trials, SPACE, OBJECTIVES)
    assert read.observed[2].losses == pytest.approx((-0.6, 2.0))
    assert not read_history(trials[2:], SPACE, OBJECTIVES).observed


def test_parameters_serve_where_no_configuration_is_recorded() -> None:
    drawn = SPACE.draw(np.random.default_rng(0))
    distributions = {name: SPACE.distributions()[name] for name in drawn.point}
    made = optuna.create_trial(
        values=[0.8, 9.0], params=dict(drawn.point), distributions=distributions
    )
    observed = read_history([made], SPACE, OBJECTIVES).observed[0]
    assert (observed.config, observed.point) == (drawn.config, drawn.point)
    incomplete = optuna.create_trial(
        values=[0.8, 9.0],
        params={"train.learning_rate": 1e-3},
        distributions={"train.learning_rate": optuna.distributions.FloatDistribution(1e-4, 1e-2)},
    )
    assert read_history([incomplete], SPACE, OBJECTIVES).observed == ()


def test_stopped_trials_promise_what_the_others_became() -> None:
    trials = [
        trial(i, TrialState.COMPLETE, [early + 0.2, 9.0], reports=reports(early, early + 0.2))
        for i, early in enumerate((0.5, 0.6, 0.7))
    ]
    trials.append(trial(9, TrialState.PRUNED, reports=reports(0.4), known={"trainable_params": 9}))
    *complete, stopped = read_history(trials, SPACE, OBJECTIVES).observed
    assert stopped.losses == pytest.approx((-0.6, 1.0))
    assert all(o.doubts == (0.0, 0.0) for o in complete)
    assert stopped.doubts[0] > 0 == stopped.doubts[1]


def test_a_rejected_trial_promises_nothing() -> None:
    read = read_history([trial(0, TrialState.PRUNED)], SPACE, OBJECTIVES)
    assert read.observed == ()
    assert read.seen == {CONFIGS[0].key}
    assert PeftConfig().key not in read.seen


def test_every_trial_is_read_as_often_as_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Readings of curves grow with the trials, not with stopped times complete ones."""
    readings = []

    def counted(*told: Any) -> Any:
        readings.append(told)
        return promise.curve_of(*told)

    monkeypatch.setattr(history, "curve_of", counted)
    trials = [trial(i, TrialState.COMPLETE, [0.8, 9.0], reports=reports(0.5)) for i in range(9)]
    trials += [trial(9 + i, TrialState.PRUNED, reports=reports(0.5)) for i in range(9)]
    assert len(read_history(trials, SPACE, OBJECTIVES).observed) == len(trials) == len(readings)
