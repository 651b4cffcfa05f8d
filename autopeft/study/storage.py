"""Optuna's relational storage for studies of thousands of trials and workers."""

from __future__ import annotations

import copy
import math
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, check_distribution_compatibility
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage, RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from autopeft.study.frozen import copied, fresh
from autopeft.study.ledger import OWNER, SYSTEM, USER, End, Entry, Ledger, complete, tables_of
from autopeft.study.reading import Reader


@dataclass
class _Cached:
    """What is kept of a study.

    Attributes:
        trials: by number; one that changes is replaced.
        last: the greatest identity among them; later trials have greater ones.
        watched: unfinished trials that other processes may change, by identity, with the size of
            their attributes when they were read.
        running: unfinished trials that this process runs, by identity.
        distributions: of each parameter.
    """

    trials: list[FrozenTrial] = field(default_factory=list)
    last: int = -1
    watched: dict[int, int] = field(default_factory=dict)
    running: dict[int, Entry] = field(default_factory=dict)
    distributions: dict[str, BaseDistribution] = field(default_factory=dict)


class KeptStorage(BaseStorage):
    """Keeps in memory what this process has read or written; reads what others have changed.

    Optuna's own cache reads every unfinished trial again at every question and writes every
    parameter and attribute in a transaction of its own. Here a trial that this process runs is
    not read again, because no other process writes it but to take it over, which the next write
    finds out; others are read again where their state or the size of their attributes has changed.
    Parameters and attributes of an own trial are written together by `flush`, or with the trial's
    next state. The record is one that every tool of Optuna reads and writes.

    For one thread, attributes of studies apart.
    """

    def __init__(self, backend: RDBStorage) -> None:
        complete(backend.engine)
        self._backend, tables = backend, tables_of(backend.engine)
        self._ledger = Ledger(backend.engine, tables)
        self._reader = Reader(backend.engine, tables)
        self._studies: dict[int, _Cached] = {}
        self._places: dict[int, tuple[int, int]] = {}
        self._unwritten: dict[int, None] = {}
        self._left: set[int] = set()
        self._signature: dict[str, Any] = {}

    def create_new_study(
        self, directions: Sequence[StudyDirection], study_name: str | None = None
    ) -> int:
        """As the backend does."""
        return self._backend.create_new_study(directions, study_name)

    def delete_study(self, study_id: int) -> None:
        """As the backend does."""
        self._studies.pop(study_id, None)
        self._backend.delete_study(study_id)

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        """As the backend does."""
        self._backend.set_study_user_attr(study_id, key, value)

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        """As the backend does."""
        self._backend.set_study_system_attr(study_id, key, value)

    def get_study_id_from_name(self, study_name: str) -> int:
        """As the backend does."""
        return self._backend.get_study_id_from_name(study_name)

    def get_study_name_from_id(self, study_id: int) -> str:
        """As the backend does."""
        return self._backend.get_study_name_from_id(study_id)

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        """As the backend does."""
        return self._backend.get_study_directions(study_id)

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        """As the backend does."""
        return self._backend.get_study_user_attrs(study_id)

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        """As the backend does."""
        return self._backend.get_study_system_attrs(study_id)

    def get_all_studies(self) -> list[Any]:
        """As the backend does."""
        return self._backend.get_all_studies()

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """As the backend does; a trial without template is an own one."""
        cached = self._cached(study_id)
        signed = create_trial(state=TrialState.RUNNING, user_attrs=dict(self._signature))
        trial_id = self._backend.create_new_trial(study_id, template_trial or signed)
        if template_trial is None:
            cached.running[trial_id] = Entry(stored={(USER, key) for key in self._signature})
            number, start = self._ledger.started(trial_id)
            trial = fresh(trial_id, number, start, self._signature)
        else:
            trial = self._backend.get_trial(trial_id)
        if trial.number == len(cached.trials):
            self._keep(study_id, trial)
        else:
            self._refresh(study_id)
        return trial_id

    def set_trial_param(
        self,
        trial_id: int,
        param_name: str,
        param_value_internal: float,
        distribution: BaseDistribution,
    ) -> None:
        """Keeps a parameter of an own trial until the next `flush`."""
        entry = self._entry(trial_id)
        if entry is None:
            self._backend.set_trial_param(trial_id, param_name, param_value_internal, distribution)
            return
        self._check(trial_id, param_name, distribution)
        value = distribution.to_external_repr(param_value_internal)
        entry.params[param_name] = (param_value_internal, distribution)
        trial = self._changed(trial_id)
        trial.params = {**trial.params, param_name: value}
        trial.distributions = {**trial.distributions, param_name: distribution}

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Keeps an attribute of an own trial until the next `flush`."""
        entry = self._entry(trial_id)
        if entry is None:
            self._backend.set_trial_user_attr(trial_id, key, value)
            return
        entry.user[key] = value
        trial = self._changed(trial_id)
        trial.user_attrs = {**trial.user_attrs, key: value}

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Keeps an attribute of an own trial until the next `flush`."""
        entry = self._entry(trial_id)
        if entry is None:
            self._backend.set_trial_system_attr(trial_id, key, value)
            return
        entry.system[key] = value
        trial = self._changed(trial_id)
        trial.system_attrs = {**trial.system_attrs, key: value}

    def set_trial_intermediate_value(
        self, trial_id: int, step: int, intermediate_value: float
    ) -> None:
        """As the backend does."""
        self._backend.set_trial_intermediate_value(trial_id, step, intermediate_value)
        if trial_id in self._places:
            trial = self._changed(trial_id)
            trial.intermediate_values = {**trial.intermediate_values, step: intermediate_value}

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        """As the backend does, after what was kept; who starts a waiting trial owns it."""
        end = End(state, tuple(values or ()), datetime.now())
        if state == TrialState.RUNNING or self._entry(trial_id) is None:
            return self._take(trial_id, state, values)
        if not state.is_finished() or not all(map(math.isfinite, end.values)):
            self._write(trial_id)
            return self._take(trial_id, state, values)
        self._write(trial_id, end)
        trial = self._changed(trial_id)
        trial.state, trial.datetime_complete = state, end.time
        trial.values = list(values) if values else None
        del self._unwritten[trial_id]
        del self._studies[self._places[trial_id][0]].running[trial_id]
        return True

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """A trial that is kept, or as the backend has it."""
        if trial_id in self._places:
            study_id, number = self._places[trial_id]
            cached = self._studies[study_id]
            trial = cached.trials[number]
            if trial.state.is_finished():
                return trial
            if trial_id in cached.running:
                return copied(trial)
        return self._backend.get_trial(trial_id)

    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        """The trials of a study in order of number, with the changes of other processes."""
        cached = self._refresh(study_id)
        trials = cached.trials[:]
        if states is not None:
            if not any(state in states for state in TrialState if state.is_finished()):
                numbers = sorted(self._places[i][1] for i in (*cached.watched, *cached.running))
                trials = [trials[number] for number in numbers]
            trials = [trial for trial in trials if trial.state in states]
        return copy.deepcopy(trials) if deepcopy else trials

    def glance(self, study_id: int) -> list[FrozenTrial]:
        """The trials as they are now, without parameters, of which there are most by far."""
        return self._reader.trials(study_id, params=False)

    def get_trial_id_from_study_id_trial_number(self, study_id: int, trial_number: int) -> int:
        """As the backend does."""
        cached = self._studies.get(study_id)
        if cached is not None and trial_number < len(cached.trials):
            return cached.trials[trial_number]._trial_id
        return self._backend.get_trial_id_from_study_id_trial_number(study_id, trial_number)

    def remove_session(self) -> None:
        """As the backend does."""
        self._backend.remove_session()

    def sign(self, attrs: Mapping[str, Any]) -> None:
        """Gives every trial that this process creates from now on these attributes of the user."""
        self._signature = dict(attrs)

    def release(self, trial_id: int, attrs: Mapping[str, Any]) -> bool:
        """Lets a trial that is trained wait for whoever starts it next.

        Args:
            trial_id: of the trial, be it an own one.
            attrs: of the user, that are new or replace others.

        Returns:
            Whether its owner was still the one that is known here.

        Raises:
            UpdateFinishedTrialError: another process has taken over an own one.
        """
        if trial_id in self._unwritten:
            self._write(trial_id)
        study_id, number = self._places[trial_id]
        cached = self._studies[study_id]
        owner = cached.trials[number].user_attrs.get(OWNER)
        done = self._ledger.release(trial_id, owner, dict(attrs))
        if cached.running.pop(trial_id, None) is not None:
            self._left.add(trial_id)
        self._keep(study_id, self._backend.get_trial(trial_id))
        return done

    def flush(self) -> None:
        """Writes what is kept of own trials.

        Raises:
            UpdateFinishedTrialError: another process has taken over one.
        """
        for trial_id in list(self._unwritten):
            self._write(trial_id)

    def _write(self, trial_id: int, end: End | None = None) -> None:
        """Writes what is kept of a trial, and its end."""
        entry = self._entry(trial_id)
        if entry is not None and (end is not None or trial_id in self._unwritten):
            try:
                self._ledger.write(trial_id, entry, end, self._signature.get(OWNER))
            except UpdateFinishedTrialError:
                self._disown(trial_id)
                raise
            entry.params, entry.user, entry.system = {}, {}, {}
        self._unwritten.pop(trial_id, None)

    def _cached(self, study_id: int) -> _Cached:
        """What is kept of a study, read at the first question."""
        if study_id not in self._studies:
            trials = self._reader.trials(study_id)
            self._studies[study_id] = _Cached()
            for trial in trials:
                self._keep(study_id, trial)
        return self._studies[study_id]

    def _refresh(self, study_id: int) -> _Cached:
        """Reads what other processes have changed."""
        cached = self._cached(study_id)
        states = self._ledger.states(study_id, cached.last, cached.watched)
        running = [i for i in cached.watched if states.get(i) == TrialState.RUNNING]
        sizes = self._ledger.sizes(running) if running else {}
        for trial_id, state in states.items():
            known = self._places.get(trial_id)
            same = known is not None and cached.trials[known[1]].state == state
            if not same or sizes.get(trial_id, -1) != cached.watched.get(trial_id, -1):
                self._keep(study_id, self._backend.get_trial(trial_id), sizes.get(trial_id, -1))
        return cached

    def _keep(self, study_id: int, trial: FrozenTrial, size: int = -1) -> None:
        """Puts a trial in its place."""
        cached, trial_id = self._studies[study_id], trial._trial_id
        self._places[trial_id] = study_id, trial.number
        cached.trials[trial.number : trial.number + 1] = [trial]
        cached.last = max(cached.last, trial_id)
        if trial.state.is_finished():
            cached.running.pop(trial_id, None)
            cached.watched.pop(trial_id, None)
        elif trial_id not in cached.running:
            cached.watched[trial_id] = size

    def _entry(self, trial_id: int) -> Entry | None:
        """What is to be written of an own trial; None where it is none.

        Raises:
            UpdateFinishedTrialError: it was one until it was released or taken over.
        """
        if trial_id in self._left:
            raise UpdateFinishedTrialError(f"trial {trial_id} is trained here no more")
        if trial_id not in self._places:
            return None
        return self._studies[self._places[trial_id][0]].running.get(trial_id)

    def _changed(self, trial_id: int) -> FrozenTrial:
        """A copy of a kept trial in its place, which is to be changed and written."""
        study_id, number = self._places[trial_id]
        trials = self._studies[study_id].trials
        trials[number] = copy.copy(trials[number])
        self._unwritten[trial_id] = None
        return trials[number]

    def _take(self, trial_id: int, state: TrialState, values: Sequence[float] | None) -> bool:
        """Changes the state of a trial that is not an own one; one that is started becomes one."""
        study_id = self._places[trial_id][0] if trial_id in self._places else None
        try:
            if state == TrialState.RUNNING:
                done = self._ledger.claim(trial_id, self._signature)
            else:
                done = self._backend.set_trial_state_values(trial_id, state, values)
        finally:
            if study_id is not None:
                trial = self._backend.get_trial(trial_id)
                self._keep(study_id, trial)
        if study_id is not None and done and state == TrialState.RUNNING:
            cached = self._studies[study_id]
            cached.watched.pop(trial_id, None)
            self._left.discard(trial_id)
            user = {(USER, key) for key in trial.user_attrs}
            system = {(SYSTEM, key) for key in trial.system_attrs}
            cached.running[trial_id] = Entry(stored=user | system)
        return done

    def _disown(self, trial_id: int) -> None:
        """Another process has taken over a trial of this one."""
        study_id = self._places[trial_id][0]
        self._unwritten.pop(trial_id, None)
        self._studies[study_id].running.pop(trial_id, None)
        self._left.add(trial_id)
        self._keep(study_id, self._backend.get_trial(trial_id))

    def _check(self, trial_id: int, name: str, distribution: BaseDistribution) -> None:
        """Refuses a distribution that does not go with that of other trials."""
        cached = self._studies[self._places[trial_id][0]]
        if name not in cached.distributions:
            distributions = (
                t.distributions[name] for t in cached.trials if name in t.distributions
            )
            cached.distributions[name] = next(distributions, distribution)
        check_distribution_compatibility(cached.distributions[name], distribution)


def sign(study: optuna.Study, attrs: Mapping[str, Any]) -> None:
    """Gives every trial that a study asks for anew these attributes, where its storage can."""
    if isinstance(study._storage, KeptStorage):
        study._storage.sign(attrs)


def release(study: optuna.Study, trial_id: int, attrs: Mapping[str, Any]) -> bool:
    """Lets a trial that is trained wait again, see `KeptStorage.release`."""
    storage = study._storage
    return isinstance(storage, KeptStorage) and storage.release(trial_id, attrs)


def flush(study: optuna.Study) -> None:
    """Writes what the storage of a study keeps for later."""
    if isinstance(study._storage, KeptStorage):
        study._storage.flush()
