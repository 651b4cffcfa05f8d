from __future__ import annotations

from dataclasses import replace

import pytest
from scipy.stats import ttest_1samp, ttest_ind

from autopeft.core.report import Report
from autopeft.objective.objective import Objective
from autopeft.report import Front, compare
from autopeft.report.baseline import welch
from autopeft.study.trial import TrialRecord
from tests.report.trials import ACCURACY, OBJECTIVES, PARAMS, STUDY, complete

LOW, HIGH = (0.700, 0.706, 0.703), (0.720, 0.731, 0.724)


def repeated(*trained: tuple[TrialRecord, float, tuple[float, ...]]) -> list[TrialRecord]:
    """Trials, each with the mean of its fresh validation accuracies and its test accuracies."""
    records = [record for record, _, _ in trained]
    for record, validation, tests in trained:
        for test in tests:
            values = {**record.values, "accuracy": validation}
            again = replace(record, number=len(records), baseline=None, repeat_of=record.number)
            records.append(replace(again, values=values, test={"accuracy": test}))
    return records


def test_a_mix_that_is_better_by_more_than_the_noise() -> None:
    """The difference of means is 2.2 points; the interval is that of Welch's test."""
    lora, mix = complete(0, 0.9, 1000, baseline="lora"), complete(1, 0.8, 600)
    (only,) = compare(repeated((lora, 0.7, LOW), (mix, 0.8, HIGH)), OBJECTIVES)
    interval = ttest_ind(HIGH, LOW, equal_var=False).confidence_interval(0.95)
    assert only.gain == pytest.approx(2.2)
    assert only.margin == pytest.approx(100 * (interval.high - interval.low) / 2)
    assert only.verdict == 1
    said = f"trial 1 beats lora by 2.2 ± {only.margin:.1f} points with 0.6 times its parameters"
    assert only.sentence == f"{said} (3 seeds)"
    assert only.to_dict()["sentence"] == only.sentence


def test_a_baseline_may_be_as_good_or_better() -> None:
    lora, mix = complete(0, 0.7, 1000, baseline="lora"), complete(1, 0.9, 20)
    (worse,) = compare(repeated((lora, 0.7, HIGH), (mix, 0.8, LOW)), OBJECTIVES)
    assert worse.verdict == -1
    assert worse.sentence.startswith("lora is better: trial 1 is behind it by 2.2 ± ")
    assert "with 0.02 times its parameters" in worse.sentence
    alike = (0.69, 0.70, 0.722)
    (same,) = compare(repeated((lora, 0.7, LOW), (mix, 0.8, alike)), OBJECTIVES)
    said = f"(+0.1 ± {same.margin:.1f} points, 3 seeds) with 0.02 times its parameters"
    assert same.sentence == f"trial 1 is as good as lora {said}"
    dear = complete(1, 0.9, 2000)
    (same,) = compare(repeated((lora, 0.7, LOW), (dear, 0.8, alike)), OBJECTIVES)
    assert same.verdict == 0
    start = "lora is as good: no mix was better than it by more than the noise (trial 1: +0.1 ± "
    assert same.sentence.startswith(start)


def test_the_rival_is_picked_by_validation_among_those_that_cost_no_more() -> None:
    """Trial 3 has the best test values, trial 2 the best validation but too many parameters.

    What is further than a point behind the baseline is not compared in place of trial 2.
    """
    lora, small = complete(0, 0.8, 100, baseline="lora"), complete(1, 0.7, 50)
    large, lucky = complete(2, 0.9, 200), complete(3, 0.8, 90)
    sides = (large, 0.8, LOW), (lucky, 0.68, HIGH)
    near = small, 0.695, LOW
    (only,) = compare(repeated((lora, 0.7, LOW), near, *sides), OBJECTIVES)
    assert only.rival is not None
    assert only.rival.number == 1
    assert only.rival.values["accuracy"] == pytest.approx(0.695)
    far = small, 0.685, LOW
    (only,) = compare(repeated((lora, 0.7, LOW), far, *sides), OBJECTIVES)
    assert only.rival is not None
    assert only.rival.number == 2
    head = replace(lora, values={**lora.values, "trainable_params": 0.0}, baseline="head-only")
    (only,) = compare(repeated((head, 0.7, LOW), near, *sides), OBJECTIVES)
    assert only.rival is not None
    assert only.rival.number == 2
    assert "points with 200 parameters against none" in only.sentence


def test_gain_of_a_minimised_objective_is_positive_for_less() -> None:
    loss = Objective("accuracy", "minimize", reference=1.0)
    lora, mix = complete(0, 0.9, 100, baseline="lora"), complete(1, 0.8, 50)
    (only,) = compare(repeated((lora, 0.9, HIGH), (mix, 0.8, LOW)), (loss, PARAMS))
    assert only.gain == pytest.approx(0.022)
    assert only.sentence.startswith(
        f"trial 1 beats lora by 0.022 ± {only.margin:.2g} of {loss.name}"
    )


def test_what_trains_nothing_is_known_exactly() -> None:
    """The noise is that of the trial alone: the interval of its mean, Student's t."""
    nothing = (Report(0, 2.0, {"trained_elements": 0.0}),)
    bare = replace(complete(0, 0.7, 0, baseline="head-only"), reports=nothing)
    mix = complete(1, 0.9, 600)
    records = repeated((bare, 0.7, (0.7,)), (mix, 0.9, HIGH))
    (only,) = compare(records, OBJECTIVES)
    interval = ttest_1samp(HIGH, 0.7).confidence_interval(0.95)
    assert only.margin == pytest.approx(100 * (interval.high - interval.low) / 2)
    assert only.sentence.startswith(f"trial 1 beats head-only by 2.5 ± {only.margin:.1f} points")
    assert only.n_seeds == 3
    wanted = "means of 3 fresh trainings each, on the validation split"
    assert Front.of(records, OBJECTIVES).basis == wanted
    alone = Front.of([r for r in records if not r.number % 2], OBJECTIVES)
    assert alone.basis == "the model as it comes, on the validation split"


def test_what_cannot_be_compared_says_so() -> None:
    lora, mix = complete(0, 0.9, 100, baseline="lora"), complete(1, 0.8, 50)
    other = complete(1, 0.8, 50, baseline="other")
    alone, _ = compare(repeated((lora, 0.9, HIGH), (other, 0.9, LOW)), OBJECTIVES)
    assert alone.sentence == "no mix was among the finalists, to be compared with lora"
    (single,) = compare(repeated((lora, 0.9, HIGH), (mix, 0.8, LOW[:1])), OBJECTIVES)
    assert single.sentence == "trial 1 and lora cannot be told apart by a single fresh training"
    records = repeated((lora, 0.9, HIGH), (mix, 0.8, LOW))
    assert compare([replace(record, test={}) for record in records], OBJECTIVES) == ()
    assert compare(STUDY, OBJECTIVES) == ()
    assert compare(records, (PARAMS,)) == ()
    (costless,) = compare(records, (ACCURACY,))
    assert "points (3 seeds)" in costless.sentence


def test_samples_without_spread_have_no_margin() -> None:
    assert welch([0.5, 0.5], [0.4, 0.4]) == 0
    assert welch([0.5], [0.4, 0.4]) is None
