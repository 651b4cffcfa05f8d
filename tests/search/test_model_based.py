"""Stopping by what a model expects, on learning curves that a formula draws."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from autopeft.core.config import PeftConfig, Placement
from autopeft.core.report import Report
from autopeft.objective.objective import load_objectives
from autopeft.search import model_based
from autopeft.search.model_based import N_LEAST, N_WORTH, ModelBased
from autopeft.search.stopping import Curve

RUNGS, LAYERS = (1.0, 3.0), 6


def curve(number: int, n_layers: int, r: int, *, n_reports: int = 2, noise: float = 0.0) -> Curve:
    """Of LoRA on the last layers: higher ranks on more layers end better and cost more."""
    layers = range(LAYERS - n_layers, LAYERS)
    config = PeftConfig.of([Placement.of("lora", layers, {"r": r})] if n_layers else [])
    gain = 0.02 * n_layers * math.log2(1 + r) / 5
    reports = tuple(
        Report(
            int(rung),
            rung,
            {
                "accuracy": 0.5 + gain * rung / 3,
                "validation_loss": 1 - gain * rung / 3 + noise,
                "train_loss": 1 - gain * rung / 3 - noise,
            },
        )
        for rung in RUNGS[:n_reports]
    )
    return Curve(number, (math.log10(1 + n_layers * r),), reports, config=config)


def table() -> list[Curve]:
    sizes = [(n, r) for n in (0, 1, 2, 4, 6) for r in (2, 8)][1:]
    return [curve(i, n, r) for i, (n, r) in enumerate(sizes)]


@pytest.fixture
def stopper() -> ModelBased:
    return ModelBased(RUNGS, load_objectives("accuracy-params"))


def test_what_would_be_dominated_stops(stopper: ModelBased) -> None:
    lower = replace(curve(20, 4, 8, n_reports=1), reports=curve(20, 0, 8, n_reports=1).reports)
    assert not stopper.decide([*table(), lower], lower).goes_on
    better = curve(21, 5, 8, n_reports=1)
    assert stopper.decide([*table(), better], better).goes_on
    cheapest = replace(lower, known=(-1.0,))
    assert stopper.decide([*table(), cheapest], cheapest).goes_on


def test_a_gap_is_worth_more_than_a_crowd(stopper: ModelBased) -> None:
    """What ends a little above the front goes on only where few trials cost about as much."""
    small = [curve(i, 1, r) for i, r in enumerate((1, 2, 3))]
    large = [replace(curve(10 + i, 6, 8), known=(1.5 + 0.01 * i,)) for i in range(N_WORTH)]
    candidate = curve(50, 4, 8, n_reports=1)
    assert stopper.decide([*small, *large, candidate], candidate).goes_on
    crowded = replace(curve(51, 6, 8, n_reports=1), known=(1.505,))
    assert not stopper.decide([*small, *large, crowded], crowded).goes_on


def test_less_is_asked_of_a_trial_while_few_have_finished(stopper: ModelBased) -> None:
    candidate = replace(curve(50, 5, 4, n_reports=1), known=(1.6,))
    many = [replace(each, number=i) for i, each in enumerate(table() * 3)]
    assert len(table()) < N_WORTH < len(many)
    assert stopper.decide([*table(), candidate], candidate).goes_on
    assert not stopper.decide([*many, candidate], candidate).goes_on


def test_a_cost_that_is_not_known_stops_nothing(stopper: ModelBased) -> None:
    lower = replace(curve(20, 0, 2, n_reports=1), known=(math.nan,))
    assert stopper.decide([*table(), lower], lower).goes_on


def test_the_configuration_counts_where_the_curve_tells_nothing(stopper: ModelBased) -> None:
    """At the first rung all look alike; what is expensive and small in effect stops."""
    rng = np.random.default_rng(0)
    flat = [
        replace(c, reports=(curve(0, 3, 4, noise=rng.normal(0, 0.1)).reports[0], c.reports[1]))
        for c in table()
    ]
    small = curve(20, 1, 3, n_reports=1)
    waste = replace(small, known=(9.0,))
    assert not stopper.decide([*flat, waste], waste).goes_on


def test_few_finished_trials_stop_none(stopper: ModelBased) -> None:
    lower = replace(curve(20, 0, 2, n_reports=1), known=(9.0,))
    few = table()[: N_LEAST - 1]
    decision = stopper.decide([*few, lower], lower)
    assert decision.goes_on
    assert "too few" in decision.reason
    assert not stopper.decide([*table()[:N_LEAST], lower], lower).goes_on


def test_losses_that_are_not_finite_stop_and_do_not_count(stopper: ModelBased) -> None:
    diverged = curve(20, 3, 8, n_reports=1, noise=math.nan)
    assert not stopper.decide([*table(), diverged], diverged).goes_on
    broken = replace(curve(21, 6, 8, noise=math.nan), known=(-5.0,))
    for current in (curve(22, 5, 8, n_reports=1), curve(23, 1, 2, n_reports=1)):
        assert stopper.decide([*table(), current], current) == stopper.decide(
            [*table(), broken, current], current
        )


def test_decisions_depend_on_the_curves_alone(stopper: ModelBased) -> None:
    running = [curve(20 + i, n, 4, n_reports=1) for i, n in enumerate((1, 3, 5, 6))]
    curves = [*table(), *running]
    decisions = [stopper.decide(curves, each) for each in running]
    assert decisions == [stopper.decide(curves[::-1], each) for each in running]
    fresh = ModelBased(RUNGS, load_objectives("accuracy-params"))
    assert decisions == [fresh.decide(curves, each) for each in running[::-1]][::-1]


def test_a_model_that_fails_stops_nothing(
    stopper: ModelBased, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("not positive definite")

    monkeypatch.setattr(model_based, "Surrogate", fail)
    lower = replace(curve(20, 0, 2, n_reports=1), known=(9.0,))
    decision = stopper.decide([*table(), lower], lower)
    assert decision.goes_on
    assert "not positive definite" in decision.reason
