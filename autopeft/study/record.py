"""The durable record: an Optuna study, read as values."""

from __future__ import annotations

import logging
import time
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy.event
import sqlalchemy.exc
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import make_url

from autopeft.core.config import PeftConfig
from autopeft.core.document import Document
from autopeft.core.errors import AutoPeftError, StudyError, unknown
from autopeft.core.report import Report
from autopeft.objective.objective import Objective
from autopeft.study.heart import Heart
from autopeft.study.ledger import OWNER
from autopeft.study.storage import KeptStorage
from autopeft.study.trial import State, TrialRecord

_log = logging.getLogger("autopeft")

_DIRECTIONS = {"minimize": StudyDirection.MINIMIZE, "maximize": StudyDirection.MAXIMIZE}

Meaning = Callable[[str, Any], Any]

PATIENCE = 60.0
"""Seconds that a server may be away; processes that give no sign for longer count as dead."""

N_DIFFERENCES = 3
"""Keys that a message names."""

VERSION = 1
"""Of what a record says; another version means something else by the same words."""


def open_storage(url: str) -> optuna.storages.BaseStorage:
    """The storage at a URL; the folder of an SQLite file is made.

    Raises:
        StudyError: it cannot be reached.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        file = sqlite_file(url)
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
        return _made(url)
    except (sqlalchemy.exc.SQLAlchemyError, ImportError, OSError, RuntimeError, ValueError) as e:
        reason = str(e).strip().splitlines()[0]
        raise StudyError(f"cannot open {url!r}: {reason}", "storage") from e


def sqlite_file(url: str) -> Path | None:
    """The file of an SQLite storage; None where the URL names no such file."""
    try:
        parsed = make_url(url)
    except (sqlalchemy.exc.ArgumentError, ValueError):
        return None
    return Path(parsed.database) if parsed.drivername == "sqlite" and parsed.database else None


def _made(url: str) -> optuna.storages.BaseStorage:
    """The storage; another process may be making its tables at the same moment."""
    waiting = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {}
    options = {**waiting, "pool_pre_ping": True}
    for pause in (0.1, 0.3, 1.0, 3.0):
        try:
            return KeptStorage(_waiting_for_its_server(RDBStorage(url, engine_kwargs=options)))
        except (sqlalchemy.exc.SQLAlchemyError, AssertionError, RuntimeError) as error:
            if isinstance(error, sqlalchemy.exc.OperationalError) and "exist" not in str(error):
                raise
            time.sleep(pause)
    return KeptStorage(_waiting_for_its_server(RDBStorage(url, engine_kwargs=options)))


def _waiting_for_its_server(storage: RDBStorage) -> RDBStorage:
    """Tries again to connect to a server that has answered before, for `PATIENCE` seconds."""

    def connect(dialect: Any, _: object, arguments: Any, options: Any) -> Any:
        deadline, has_told = time.monotonic() + PATIENCE, False
        while True:
            try:
                return dialect.connect(*arguments, **options)
            except dialect.loaded_dbapi.OperationalError as error:
                if time.monotonic() > deadline:
                    raise
                if not has_told:
                    reason = str(error).strip().partition("\n")[0]
                    _log.warning("the storage does not answer, it is tried again: %s", reason)
                has_told = True
            time.sleep(1)

    if storage.engine.dialect.name != "sqlite":
        sqlalchemy.event.listen(storage.engine, "do_connect", connect)
    return storage


def is_recorded(url: str, name: str) -> bool:
    """Whether a storage has a study; StudyError where it cannot be opened."""
    if (file := sqlite_file(url)) is not None and not file.is_file():
        return False
    with reachable():
        return name in optuna.get_all_study_names(open_storage(url))


def find_record(url: str, name: str) -> optuna.Study:
    """The record of a study that has been run.

    Raises:
        StudyError: there is none, or it cannot be read.
    """
    file = sqlite_file(url)
    if file is not None and not file.is_file():
        raise StudyError(
            f"{name!r} has no record yet at {url}; `autopeft run` starts it", "storage"
        )
    with reachable():
        storage = open_storage(url)
        names = optuna.get_all_study_names(storage)
        if name not in names:
            known = unknown("study", name, names)
            raise StudyError(f"{known}; `autopeft run` starts it", "storage")
        study = optuna.load_study(study_name=name, storage=storage)
        _check_version(study)
    return study


def open_record(
    url: str, name: str, objectives: Sequence[Objective], sampler: optuna.samplers.BaseSampler
) -> optuna.Study:
    """The record of a study, made where there is none.

    Args:
        url: of the storage.
        name: of the study.
        objectives: their order is that of the recorded values.
        sampler: proposes configurations.

    Raises:
        StudyError: it cannot be read or written, or another version of autopeft has made it.
    """
    directions = [_DIRECTIONS[o.goal] for o in objectives]
    with reachable():
        storage = open_storage(url)
        try:
            study = optuna.create_study(
                study_name=name, storage=storage, directions=directions, sampler=sampler
            )
            _name_values(study, objectives)
            _name_record(study)
        except optuna.exceptions.DuplicatedStudyError:
            study = optuna.load_study(study_name=name, storage=storage, sampler=sampler)
            _check_version(study)
            if "record" not in study.user_attrs:
                _name_record(study)
    return study


def agree(study: optuna.Study, identity: Mapping[str, Any], meaning: Meaning) -> None:
    """Checks that a study goes on as what it was begun as; what is new is recorded.

    Args:
        study: the record.
        identity: what must not change, by key of the study file, as JSON keeps it.
        meaning: of a recorded value, with what has got a default since then.

    Raises:
        StudyError: it has begun otherwise; the error names the difference.
    """
    recorded = study.user_attrs.get("identity", {})
    check_same(recorded, identity, meaning, study.study_name)
    if recorded.keys() != identity.keys():
        study.set_user_attr("identity", {**identity, **recorded})


def check_same(
    recorded: Mapping[str, Any], identity: Mapping[str, Any], meaning: Meaning, name: str
) -> None:
    """Checks what a record tells against what is there now; see `agree`.

    Raises:
        StudyError: something differs.
    """
    for key, value in identity.items():
        there = meaning(key, recorded[key]) if key in recorded else value
        if not _is_same(there, value):
            what = f"{name!r} was begun with another {key}: {difference(there, value)}"
            raise StudyError(f"{what}; choose another name or storage", key)


def _is_same(there: Any, here: Any) -> bool:
    """Whether two values are the same; names tell only where nothing else does."""
    if not (isinstance(there, Mapping) and isinstance(here, Mapping)):
        return bool(there == here)
    if {"name"} in (there.keys(), here.keys()):
        return bool(there.get("name") == here.get("name"))
    return {**there, "name": ""} == {**here, "name": ""}


def _check_version(study: optuna.Study) -> None:
    """Refuses what this autopeft does not read; another process may just be making the record.

    The first records had no version and said the same.
    """
    for pause in (0.1, 0.3, 1.0, 3.0):
        if {"record", "identity"}.isdisjoint(study.user_attrs):
            time.sleep(pause)
    version = study.user_attrs.get("record", {}).get("version", VERSION)
    if version != VERSION:
        reason = f"has version {version}, this autopeft reads version {VERSION}"
        raise StudyError(f"the record of {study.study_name!r} {reason}", "storage")


def _name_record(study: optuna.Study) -> None:
    study.set_user_attr("record", {"version": VERSION, "id": uuid.uuid4().hex})


def _name_values(study: optuna.Study, objectives: Sequence[Objective]) -> None:
    """Shows the names of the objectives in Optuna's dashboard."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.set_metric_names([o.name for o in objectives])


def difference(there: Any, here: Any, key: str = "") -> str:
    """Where two values differ: by key what stands there and here, of many keys the first."""
    if isinstance(there, Mapping) and isinstance(here, Mapping):
        keys = [k for k in {**there, **here} if there.get(k) != here.get(k)]
        inner = (difference(there.get(k), here.get(k), f"{key}.{k}".lstrip(".")) for k in keys)
        return ", ".join(islice(inner, N_DIFFERENCES))
    told_here = f"{_short(there)} there, {_short(here)} here"
    return f"{key} is {told_here}" if key else told_here


def _short(value: Any) -> str:
    text = str(value)
    return repr(text if len(text) <= 80 else f"{text[:77]}…")


def record_id(study: optuna.Study) -> str:
    """What no other record is called."""
    return str(study.user_attrs.get("record", {}).get("id", ""))


def stamp_of(record: str, config: PeftConfig) -> str:
    """What the tensors of a trial say of where they belong."""
    return f"{record}:{config.key}"


def read_trials(study: optuna.Study, names: Sequence[str]) -> tuple[TrialRecord, ...]:
    """Every trial of a record as a value, in order of number; none has its point.

    Args:
        study: the record.
        names: of the objectives, in the order of the recorded values.
    """
    heart = Heart(study)
    with reachable():
        trials = _glance(study)
        return tuple(_looked_at(read_trial(trial, names), trial, heart) for trial in trials)


def _glance(study: optuna.Study) -> list[FrozenTrial]:
    """The trials of a study, without parameters where its storage can leave them out."""
    if isinstance(study._storage, KeptStorage):
        return study._storage.glance(study._study_id)
    return study.get_trials(deepcopy=False)


def _looked_at(record: TrialRecord, trial: FrozenTrial, heart: Heart) -> TrialRecord:
    """The trial as whoever does not run it sees it: its process may have died."""
    owner = trial.user_attrs.get(OWNER)
    if trial.state != TrialState.RUNNING or owner is None or heart.is_alive(owner):
        return record
    return replace(record, state="interrupted")


def read_trial(trial: FrozenTrial, names: Sequence[str]) -> TrialRecord:
    """One trial as a value."""
    attrs, document = trial.user_attrs, Document(trial.user_attrs)
    values = trial.values if trial.state == TrialState.COMPLETE else None
    return _Written.of(
        document,
        number=trial.number,
        state=_state(trial),
        values=dict(zip(names, values or (), strict=False)),
        known=document.known,
        baseline=document.baseline,
        error=attrs.get("error", attrs.get("rejected")),
        seconds=attrs.get("seconds"),
        began=trial.datetime_start.timestamp() if trial.datetime_start else None,
        ended=trial.datetime_complete.timestamp() if trial.datetime_complete else None,
        folder=attrs.get("folder") if trial.state == TrialState.COMPLETE else None,
        point=trial.params,
        repeat_of=attrs.get("repeat_of"),
        proposer=document.proposer,
        origin=attrs.get("origin"),
        test_margins={},
        margins={},
    )


class _Written(TrialRecord):
    """A trial whose configuration and learning curve are read when they are asked for."""

    _document: Document

    @classmethod
    def of(cls, document: Document, **fields: Any) -> TrialRecord:
        record = object.__new__(cls)
        vars(record).update(fields, _document=document)
        return record

    @cached_property
    def config(self) -> PeftConfig:
        with reachable():
            return self._document.config or PeftConfig()

    @cached_property
    def reports(self) -> tuple[Report, ...]:
        with reachable():
            return self._document.reports

    @cached_property
    def test(self) -> Mapping[str, float]:
        return self.reports[-1].test if self.reports else {}


def is_interrupted(trial: FrozenTrial) -> bool:
    """Whether another trial stands for one that was given up, as in the first records."""
    return trial.state == TrialState.FAIL and "error" not in trial.user_attrs


def lost(error: BaseException | None) -> StudyError | None:
    """The sentence for an error that says that the storage does not answer; None for others."""
    failures = (optuna.exceptions.StorageInternalError, sqlalchemy.exc.SQLAlchemyError, KeyError)
    if not isinstance(error, failures):
        return None
    if isinstance(error, KeyError) and "Record does not exist" not in str(error):
        return None
    reason = str(error.__cause__ or error).strip().splitlines()[0]
    return StudyError(f"the record of the study is out of reach: {reason}", "storage")


@contextmanager
def reachable() -> Iterator[None]:
    """Failures of the storage inside, and contents that mean nothing, are one sentence.

    Raises:
        StudyError: the record cannot be read or written.
    """
    try:
        yield
    except AutoPeftError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise lost(error) or StudyError(f"the record is damaged: {reason}", "storage") from error
    except Exception as error:
        sentence = lost(error)
        if sentence is None:
            raise
        raise sentence from error


def _state(trial: FrozenTrial) -> State:
    if is_interrupted(trial):
        return "rejected"
    if trial.state == TrialState.WAITING and OWNER in trial.user_attrs:
        return "interrupted"
    if trial.state == TrialState.RUNNING and trial.user_attrs.get("paused"):
        return "paused"
    if trial.state == TrialState.PRUNED:
        return "rejected" if "rejected" in trial.user_attrs else "stopped"
    names: dict[TrialState, State] = {
        TrialState.COMPLETE: "complete",
        TrialState.FAIL: "failed",
        TrialState.RUNNING: "running",
        TrialState.WAITING: "waiting",
    }
    return names[trial.state]
