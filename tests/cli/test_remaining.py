from __future__ import annotations

import random
from dataclasses import replace

import pytest

from autopeft.cli.remaining import most_repeats, planned, seconds_left
from autopeft.core.config import PeftConfig, Placement
from autopeft.core.report import TRAINED, Report
from autopeft.study.spec import FidelitySection, Search
from autopeft.study.trial import TrialRecord

SEARCH = Search(n_trials=24, baselines=[*"abcde"], n_finalists=3, n_seeds=3)
LORA = PeftConfig.of([Placement.of("lora", [0], {"r": 8})])
OVERHEAD, STRETCH = 0.4, 2.0
LONGER = FidelitySection(epochs=3.0, final_epochs=6.0)


def timeline(n_workers: int, seed: int, spread: float) -> list[tuple[TrialRecord, float]]:
    """The trainings of a study, each with its end; repeats begin when the search has ended."""
    rng = random.Random(seed)
    free: list[float] = [0.0] * n_workers
    trials: list[tuple[TrialRecord, float]] = []
    for number in range(24 + 21):
        free = [max(free)] * n_workers if number == 24 else free
        repeat_of = None if number < 24 else (number - 24) % 7
        again = None if repeat_of is None else trials[repeat_of][0].seconds
        seconds = STRETCH * again if again else rng.uniform(15 / spread, 15 * spread)
        worker = free.index(min(free))
        began = free[worker]
        free[worker] = ended = began + OVERHEAD + seconds
        baseline = "abcde"[number] if number < 5 else None
        record = TrialRecord(number, "complete", LORA, baseline=baseline, seconds=seconds)
        record = replace(record, began=began, ended=ended, repeat_of=repeat_of)
        trials.append((record, ended))
    return trials


def seen(trials: list[tuple[TrialRecord, float]], now: float) -> list[TrialRecord]:
    """What the record says at a time: repeats are queued when the search has ended."""
    queued = max(ended for trial, ended in trials if trial.repeat_of is None) <= now
    records = []
    for trial, ended in trials:
        assert trial.began is not None
        if ended <= now:
            records.append(trial)
        elif trial.began <= now:
            records.append(replace(trial, state="running", seconds=None, ended=None))
        elif trial.repeat_of is not None and queued:
            records.append(replace(trial, state="waiting", seconds=None, began=None, ended=None))
    return records


@pytest.mark.parametrize("n_workers", [1, 2, 4])
@pytest.mark.parametrize("seed", range(4))
def test_the_time_left_is_right_within_a_third_from_the_fifth_trial_on(
    n_workers: int, seed: int
) -> None:
    """Near the end, by a training at most."""
    trials = timeline(n_workers, seed, spread=1.5)
    last = max(ended for _, ended in trials)
    ends = sorted(ended for _, ended in trials)[4:]
    for now in [*ends, *(end + 3 for end in ends[:-1])]:
        left = seconds_left(seen(trials, now), SEARCH, LONGER, now)
        assert left is not None
        assert abs(left - (last - now)) <= max((last - now) / 3, 20), (now, left, last - now)


def test_a_break_between_two_runs_is_no_work() -> None:
    trials = [trial for trial, _ in timeline(1, 0, spread=1.0)][:10]
    late = [replace(t, began=t.began + 9e4, ended=t.ended + 9e4) for t in trials[5:]]
    search = Search(n_trials=20, n_finalists=0)
    assert seconds_left([*trials[:5], *late], search, LONGER, 2e5) == pytest.approx(
        10 * (15 + OVERHEAD)
    )


def test_short_proposals_count_for_themselves_once_there_are_some() -> None:
    """Proposals that are stopped take 3 seconds, baselines 15."""
    trials = [trial for trial, _ in timeline(1, 0, spread=1.0)][:9]
    began = 5 * (15 + OVERHEAD)
    stopped = [
        replace(t, state="stopped", seconds=3.0, began=began + 3 * i, ended=began + 3 * i + 3)
        for i, t in enumerate(trials[5:])
    ]
    left = seconds_left([*trials[:5], *stopped], Search(n_trials=19, n_finalists=0), LONGER, 90)
    assert left == pytest.approx(30, rel=0.05)


def test_nothing_is_known_before_the_first_end() -> None:
    running = TrialRecord(0, "running", LORA, began=0.0)
    assert seconds_left([running], SEARCH, LONGER, 9.0) is None
    assert seconds_left([], SEARCH, LONGER, 9.0) is None


def test_the_head_alone_and_a_search_tell_nothing_of_others() -> None:
    head = TrialRecord(0, "complete", PeftConfig(), baseline="head-only", seconds=0.1, began=0.0)
    searched = TrialRecord(1, "stopped", LORA, proposer="supernet", seconds=500.0, began=0.0)
    assert seconds_left([head, searched], SEARCH, LONGER, 9.0) is None
    trained = TrialRecord(2, "complete", LORA, seconds=10.0, began=0.0, ended=10.0)
    search = SEARCH.model_copy(update={"n_finalists": 0})
    alone = seconds_left([trained], search, LONGER, 10.0)
    assert alone == pytest.approx(230.0)


def test_repeats_come_on_top() -> None:
    assert most_repeats(SEARCH, LONGER) == 24
    assert most_repeats(Search(n_finalists=0, baselines=["lora"]), LONGER) == 0
    trials = timeline(1, 0, spread=1.0)
    assert planned([], SEARCH, LONGER) == 48
    search_only = [trial for trial, _ in trials[:24]]
    assert planned(search_only, SEARCH, LONGER) == 48
    assert planned(seen(trials, trials[23][1]), SEARCH, LONGER) == 24 + 21
    assert planned([trial for trial, _ in trials], SEARCH, LONGER) == 24 + 21
    failed = [replace(trial, state="failed") for trial in search_only]
    assert planned(failed, SEARCH, LONGER) == 24
    assert seconds_left(seen(trials, trials[-1][1]), SEARCH, LONGER, trials[-1][1]) == 0


def test_a_model_as_it_comes_has_no_seeds_to_follow() -> None:
    trials = [trial for trial, _ in timeline(1, 0, spread=1.0)][:23]
    as_it_comes = replace(trials[0], reports=(Report(0, 0.0, {TRAINED: 0}),))
    assert as_it_comes.trains_nothing
    assert planned([as_it_comes, *trials[1:]], SEARCH, LONGER) == 48 - 2
