from __future__ import annotations

import math
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from autopeft.core.config import PeftConfig
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
    history = read_history(trials[::-1], SPACE, OBJECTIVES)
    assert [o.config for o in history.observed] == [CONFIGS[0]]
    assert history.observed[0].losses == pytest.approx((-0.8, 3.0))
    assert [o.config for o in history.pending] == [CONFIGS[1], CONFIGS[4]]
    assert history.pending[0].losses == pytest.approx((math.nan, 2.0), nan_ok=True)
    assert history.seen == {CONFIGS[i].key for i in (0, 1, 2, 3, 4, 6)}


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


def stopped(others: list[list[float]], last: float) -> float:
    """The accuracy that a trial stopped at fidelity 1 promises, after others that were not."""
    trials = [
        trial(i, TrialState.COMPLETE, [curve[-1], 9.0], reports=reports(*curve))
        for i, curve in enumerate(others)
    ]
    trials.append(trial(9, TrialState.PRUNED, reports=reports(last)))
    return -read_history(trials, SPACE, OBJECTIVES).observed[-1].losses[0]


def test_stopped_trials_promise_what_the_others_became() -> None:
    assert stopped([], 0.6) == pytest.approx(0.6)
    assert stopped([[0.6, 0.8]], 0.5) == pytest.approx(0.7)
    halved = [[0.5, 0.8], [0.6, 0.85], [0.7, 0.9]]
    assert stopped(halved, 0.4) == pytest.approx(0.75)
    falling = [[0.5, 0.9], [0.6, 0.8], [0.7, 0.7]]
    assert stopped(falling, 0.4) == pytest.approx(0.8)


def test_a_promise_is_in_doubt_by_what_the_others_stray_from_it() -> None:
    def doubt(*finals: float) -> float:
        trials = [
            trial(i, TrialState.COMPLETE, [final, 9.0], reports=reports(0.5 + i / 10, final))
            for i, final in enumerate(finals)
        ]
        trials.append(trial(9, TrialState.PRUNED, reports=reports(0.6)))
        history = read_history(trials, SPACE, OBJECTIVES)
        assert all(o.doubts == (0.0, 0.0) for o in history.observed[:-1])
        return history.observed[-1].doubts[0]

    assert doubt(0.6, 0.7, 0.8) == pytest.approx(0.0)
    assert doubt(0.62, 0.66, 0.82) == pytest.approx(np.mean([0.02**2, 0.04**2, 0.02**2]), rel=0.3)


def test_a_rejected_trial_promises_nothing() -> None:
    history = read_history([trial(0, TrialState.PRUNED)], SPACE, OBJECTIVES)
    assert history.observed == ()
    assert history.seen == {CONFIGS[0].key}
    assert PeftConfig().key not in history.seen
