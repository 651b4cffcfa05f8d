"""How much of a study is still to be trained, and how long that takes."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from autopeft.study.spec import FidelitySection, Search
from autopeft.study.trial import TrialRecord

ENDED = ("complete", "stopped", "failed")
UNDER_WAY = ("running", "paused")

N_TELL = 3
"""Ended proposals after which those alone tell what a proposal takes, without the baselines."""


def ended(trials: Sequence[TrialRecord]) -> int:
    """How many trials were trained, or tried, to their end."""
    return sum(trial.state in ENDED for trial in trials)


def planned(trials: Sequence[TrialRecord], search: Search, fidelity: FidelitySection) -> int:
    """How many trainings are to be run in all, those with fresh seeds included."""
    follow = len(_repeats(trials)) + _unqueued(trials, search, fidelity)
    beside = sum(t.origin is not None or t.proposer is not None for t in trials)
    return max(ended(trials), search.n_trials + beside + follow)


def most_repeats(search: Search, fidelity: FidelitySection) -> int:
    """How many trainings with fresh seeds follow, or less.

    Less do where a baseline is a finalist, too, or trains nothing.
    """
    n_again = search.n_finalists and search.n_finalists + len(search.baselines)
    n_longer = len(fidelity.lengths) - 1 if n_again > 1 else 0
    return (n_again + n_longer) * search.n_seeds


def seconds_left(
    trials: Sequence[TrialRecord], search: Search, fidelity: FidelitySection, now: float
) -> float | None:
    """An estimate from what trials took so far and how fast they came to their ends.

    Args:
        trials: of the study.
        search: how many are to be trained, and how many of those once more.
        fidelity: how far trials go, and the trainings with fresh seeds.
        now: the time, in seconds since the epoch.

    Returns:
        None before the first trial has ended that trains more than the head.
    """
    took = {t.number: t.seconds for t in trials if t.state in ENDED and t.seconds is not None}
    typical = [took[t.number] for t in trials if t.number in took and _is_typical(t)]
    if not typical:
        return None
    counted = [t for t in trials if t.is_own and not t.origin and t.state in (*ENDED, *UNDER_WAY)]
    proposals = [t.number for t in counted if t.baseline is None and t.number in took]
    one = fmean(took[n] for n in proposals) if len(proposals) >= N_TELL else fmean(typical)
    whole = [took[t.number] for t in counted if t.state == "complete" and t.number in took]
    again = fidelity.stretch * (fmean(whole) if whole else one)
    work = one * max(0, search.n_trials - len(counted)) + again * _unqueued(
        trials, search, fidelity
    )
    for trial in trials:
        first = None if trial.repeat_of is None else took.get(trial.repeat_of)
        known = again if first is None else fidelity.stretch * first
        expected = one if trial.repeat_of is None else known
        if trial.state in UNDER_WAY:
            work += max(0.0, expected - _elapsed(trial, now))
        elif trial.state in ("waiting", "interrupted") and (
            trial.repeat_of is not None or trial.origin is not None
        ):
            work += expected
    return work / _pace(trials, now)


def _is_typical(trial: TrialRecord) -> bool:
    """Whether others take about as long: the head alone needs the layers only once."""
    return trial.proposer is None and bool(trial.config.placements)


def _repeats(trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Those with fresh seeds that are queued or were trained."""
    return [t for t in trials if t.repeat_of is not None and t.state != "rejected"]


def _unqueued(trials: Sequence[TrialRecord], search: Search, fidelity: FidelitySection) -> int:
    """How many trainings with fresh seeds will be queued, those of the first finalist first."""
    queued = _repeats(trials)
    is_over = ended([t for t in trials if not t.proposer and not t.origin]) >= search.n_trials
    may_follow = not is_over or any(trial.state == "complete" for trial in trials)
    if not may_follow or len({trial.repeat_of for trial in queued}) > 1:
        return 0
    untrained = sum(t.baseline is not None and t.trains_nothing for t in trials)
    most = most_repeats(search, fidelity) - untrained * (search.n_seeds - 1)
    return max(0, most - len(queued))


def _pace(trials: Sequence[TrialRecord], now: float) -> float:
    """Seconds of training done in a second, while any was done: workers and packs tell here."""
    done, spans = 0.0, []
    for trial in trials:
        if trial.began is not None and trial.state in (*ENDED, "running"):
            spans.append((trial.began, now if trial.ended is None else trial.ended))
            done += _elapsed(trial, now) if trial.seconds is None else trial.seconds
    busy, until = 0.0, 0.0
    for began, end in sorted(spans):
        busy += max(0.0, end - max(began, until))
        until = max(until, end)
    return done / busy if done and busy else 1.0


def _elapsed(trial: TrialRecord, now: float) -> float:
    """Of a trial that runs; of one that pauses nothing is known."""
    if trial.state != "running" or trial.began is None:
        return 0.0
    return max(0.0, now - trial.began)
