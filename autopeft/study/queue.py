"""What waits in a record to be trained, besides what a sampler proposes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import optuna

from autopeft.core.config import PeftConfig
from autopeft.objective.objective import Objective
from autopeft.study.index import Index
from autopeft.study.repeats import repeats, rerun
from autopeft.study.terms import Terms
from autopeft.study.trial import TrialRecord

_HANDED_ON = (
    "config",
    "key",
    "baseline",
    "again",
    "wanted",
    "attempts",
    "repeat",
    "repeat_of",
    "proposer",
    "origin",
    "seed",
    "epochs",
)
"""Attributes that a trial which waits has of those it is queued with."""


class Queue:
    """Puts trials into a record that wait there until some process takes them.

    Args:
        record: of the study.
    """

    def __init__(self, record: optuna.Study) -> None:
        self._record = record
        self._has_rerun = False

    def put(self, point: Mapping[str, Any], attrs: Mapping[str, Any]) -> None:
        """Queues a trial, by its decisions or with the attributes of its configuration."""
        queued = {key: attrs[key] for key in _HANDED_ON if key in attrs}
        self._record.enqueue_trial(dict(point), user_attrs=queued)

    def baselines(self, configs: Mapping[str, PeftConfig], index: Index) -> None:
        """Queues those that have no trial, or whose trials have failed."""
        for name, config in configs.items():
            if not index.has_baseline(name):
                again = {"again": True} if index.has_failed_baseline(name) else {}
                self.put({}, {**_configured(config), "baseline": name, **again})

    def proposers(self, terms: Terms, index: Index) -> None:
        """Queues the one-shot searches that have no trial."""
        for proposer in terms.proposers:
            name = json.dumps(proposer, sort_keys=True)
            if not index.has_proposer(name):
                self.put({}, {"config": terms.largest.to_dict(), "proposer": name})

    def wanted(self, config: PeftConfig) -> int:
        """Queues a configuration that somebody wants to see tried; the number of its trial."""
        self.put({}, {**_configured(config), "wanted": True})
        trials = self._record.get_trials(deepcopy=False)
        return max(t.number for t in trials if t.user_attrs.get("key") == config.key)

    def repeats(
        self,
        trials: Sequence[TrialRecord],
        objectives: Sequence[Objective],
        terms: Terms,
        index: Index,
    ) -> int:
        """Queues finalists and baselines, or the one to rerun, for every fresh seed that they lack.

        Returns:
            How many were queued.
        """
        known = index.has_repeat
        if terms.rerun is None:
            seeds = range(terms.seed + 1, terms.seed + 1 + terms.n_seeds)
            due = repeats(trials, objectives, terms.n_finalists, seeds, terms.lengths, known)
        elif self._has_rerun:
            return 0
        else:
            due = iter(rerun(trials, terms.rerun, terms.n_seeds, terms.seed, known))
            self._has_rerun = True
        new = [(trial, attrs) for trial, attrs in due if not index.has_repeat(attrs["repeat"])]
        for trial, attrs in new:
            self.put(trial.point, {**_configured(trial.config), **attrs})
        return len(new)


def _configured(config: PeftConfig) -> dict[str, Any]:
    return {"config": config.to_dict(), "key": config.key}
