"""What a study looks up of its trials, read anew only of those that have changed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import compress
from operator import is_not
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from autopeft.study.record import is_interrupted, read_trial
from autopeft.study.trial import TrialRecord

REASONS = ("baseline", "repeat", "proposer")
"""Attributes that say why a trial was queued."""

BESIDE = {"repeat", "again", "wanted", "proposer", "origin"}
"""Attributes of trials that do not count among `n_trials`: other seeds, baselines once more, what
somebody wanted to see tried, one-shot searches and what they propose."""

Name = tuple[str, Any]


class Index:
    """The trials of a study by what they stand for, how many count, and all of them as values.

    Args:
        names: of the objectives, in the order of the recorded values.

    Attributes:
        shortages: what trials recorded that did not fit into memory, by number.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._objectives = tuple(names)
        self._trials: list[FrozenTrial] = []
        self._records: list[TrialRecord | None] = []
        self._unread: set[int] = set()
        self._counted = bytearray()
        self._named: dict[Name, set[int]] = defaultdict(set)
        self._keys: set[str] = set()
        self.shortages: dict[int, Mapping[str, Any]] = {}

    def __len__(self) -> int:
        return len(self._trials)

    def update(self, trials: list[FrozenTrial]) -> None:
        """Takes in all trials in order of number; one that has changed is another object."""
        known = len(self._trials)
        changed = compress(range(known), map(is_not, self._trials, trials))
        for number in changed:
            for name in _names(self._trials[number]):
                self._named[name].discard(number)
            self._add(trials[number])
        self._records += [None] * (len(trials) - known)
        self._counted += bytes(len(trials) - known)
        for trial in trials[known:]:
            self._add(trial)
        self._trials = trials

    def n_counted(self, before: int | None = None) -> int:
        """How many trials are among those that a study may have, with a number below `before`."""
        return self._counted.count(1, 0, before)

    def twin(self, number: int, attrs: dict[str, Any]) -> int | None:
        """Another trial that stands for the same thing.

        Of trials that two processes have queued for one reason, the first counts; of trials that
        were proposed, whichever has its configuration already.
        """
        for reason in REASONS:
            if reason in attrs:
                same = self._named.get((reason, attrs[reason]), ())
                return min((other for other in same if other < number), default=None)
        same = self._named.get(("key", attrs["key"]), ())
        return min((other for other in same if other != number), default=None)

    def queued_point(self, number: int) -> Mapping[str, Any]:
        """The point that a trial was queued with; none of what lies outside of the space."""
        point: Mapping[str, Any] = self._trials[number].system_attrs.get("fixed_params", {})
        return point

    def has_baseline(self, name: str) -> bool:
        """Whether a trial of a baseline was ever queued that has not failed."""
        return any(trial.state != TrialState.FAIL for trial in self._of_baseline(name))

    def has_failed_baseline(self, name: str) -> bool:
        """Whether a trial of a baseline has failed, so that another stands beside `n_trials`."""
        return any(trial.state == TrialState.FAIL for trial in self._of_baseline(name))

    def _of_baseline(self, name: str) -> Iterator[FrozenTrial]:
        return (trial for trial in self._trials if trial.user_attrs.get("baseline") == name)

    def has_repeat(self, name: str) -> bool:
        """Whether a trial with this `repeat` was ever queued and not lost."""
        return bool(self._named.get(("repeat", name)))

    def has_proposer(self, name: str) -> bool:
        """Whether a one-shot search was ever queued."""
        return bool(self._named.get(("proposer", name)))

    def n_waiting_beside(self) -> int:
        """How many trials are queued that do not count among `n_trials`."""
        waiting = (t for t in self._trials if t.state == TrialState.WAITING)
        return sum(not BESIDE.isdisjoint(t.user_attrs) for t in waiting)

    def is_waiting(self) -> bool:
        """Whether any trial is queued."""
        return any(trial.state == TrialState.WAITING for trial in self._trials)

    def greatest(self, quantity: str) -> float:
        """The greatest recorded value of a known quantity of complete trials; 0 for none."""
        complete = (t for t in self._trials if t.state == TrialState.COMPLETE)
        known = (t.user_attrs.get("known", {}).get(quantity, 0.0) for t in complete)
        return max(known, default=0.0)

    def knows(self, key: str) -> bool:
        """Whether a trial, be it a rejected one, has the configuration of a key."""
        return key in self._keys

    def unread(self) -> list[TrialRecord]:
        """The trials that have changed since they were last asked for."""
        numbers, self._unread = sorted(self._unread), set()
        read = [read_trial(self._trials[number], self._objectives) for number in numbers]
        for record in read:
            self._records[record.number] = record
        return read

    def records(self) -> tuple[TrialRecord, ...]:
        """Every trial as a value; nothing is unread."""
        return tuple(record for record in self._records if record is not None)

    def _add(self, trial: FrozenTrial) -> None:
        self._unread.add(trial.number)
        self._counted[trial.number] = _counts(trial)
        for name in _names(trial):
            self._named[name].add(trial.number)
        if "shortage" in trial.user_attrs:
            self.shortages[trial.number] = trial.user_attrs["shortage"]
        if "key" in trial.user_attrs:
            self._keys.add(trial.user_attrs["key"])


def _names(trial: FrozenTrial) -> list[Name]:
    """Under which names a trial is found: one that was rejected under none, failed ones by key."""
    attrs = trial.user_attrs
    if "rejected" in attrs:
        return []
    is_keyless = is_interrupted(trial) or "repeat" in attrs
    kinds = {*REASONS} if is_keyless else {*REASONS, "key"}
    if trial.state == TrialState.FAIL and not is_keyless:
        kinds -= {"baseline", "proposer"}
    return [(kind, attrs[kind]) for kind in kinds if kind in attrs]


def _counts(trial: FrozenTrial) -> bool:
    """Whether a trial is one of `n_trials`: it is or was trained, and repeats no other."""
    if not BESIDE.isdisjoint(trial.user_attrs):
        return False
    if trial.state == TrialState.PRUNED:
        return "rejected" not in trial.user_attrs
    return trial.state != TrialState.WAITING and not is_interrupted(trial)
