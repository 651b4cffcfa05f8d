"""The durable record: an Optuna study, read as values."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy.exc
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import make_url

from autopeft.core.config import PeftConfig
from autopeft.core.document import Document
from autopeft.core.errors import StudyError, unknown
from autopeft.objective.objective import Objective
from autopeft.study.storage import KeptStorage
from autopeft.study.trial import State, TrialRecord

_DIRECTIONS = {"minimize": StudyDirection.MINIMIZE, "maximize": StudyDirection.MAXIMIZE}


def open_storage(url: str) -> optuna.storages.BaseStorage:
    """The storage at a URL; the folder of an SQLite file is made.

    Raises:
        StudyError: it cannot be reached.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        if url.startswith("sqlite:///"):
            Path(url.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
        return _made(url)
    except (
        sqlalchemy.exc.SQLAlchemyError,
        ImportError,
        OSError,
        RuntimeError,
        ValueError,
    ) as error:
        reason = str(error).strip().splitlines()[0]
        raise StudyError(f"cannot open {without_password(url)!r}: {reason}", "storage") from error


def without_password(url: str) -> str:
    """The URL as it may be shown."""
    try:
        return make_url(url).render_as_string(hide_password=True)
    except sqlalchemy.exc.ArgumentError:
        return url


def _made(url: str) -> optuna.storages.BaseStorage:
    """The storage; another process may be making its tables at the same moment."""
    waiting = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {}
    options = {**waiting, "pool_pre_ping": True}
    for pause in (0.1, 0.3, 1.0, 3.0):
        try:
            return KeptStorage(RDBStorage(url, engine_kwargs=options))
        except (sqlalchemy.exc.SQLAlchemyError, AssertionError, RuntimeError) as error:
            if isinstance(error, sqlalchemy.exc.OperationalError) and "exist" not in str(error):
                raise
            time.sleep(pause)
    return KeptStorage(RDBStorage(url, engine_kwargs=options))


def find_record(url: str, name: str) -> optuna.Study:
    """The record of a study that has been run.

    Raises:
        StudyError: there is none.
    """
    path = Path(url.removeprefix("sqlite:///"))
    if url.startswith("sqlite:///") and not path.is_file():
        raise StudyError(
            f"{name!r} has no record yet at {url}; `autopeft run` starts it", "storage"
        )
    storage = open_storage(url)
    names = optuna.get_all_study_names(storage)
    if name not in names:
        raise StudyError(f"{unknown('study', name, names)}; `autopeft run` starts it", "storage")
    return optuna.load_study(study_name=name, storage=storage)


def open_record(
    url: str,
    name: str,
    objectives: Sequence[Objective],
    identity: Mapping[str, Any],
    sampler: optuna.samplers.BaseSampler,
) -> optuna.Study:
    """The record of a study, made where there is none.

    Args:
        url: of the storage.
        name: of the study.
        objectives: their order is that of the recorded values.
        identity: what a continued study must agree with, by key of the study file.
        sampler: proposes configurations.

    Raises:
        StudyError: the storage holds a study of this name with another identity.
    """
    study = optuna.create_study(
        study_name=name,
        storage=open_storage(url),
        directions=[_DIRECTIONS[o.goal] for o in objectives],
        sampler=sampler,
        load_if_exists=True,
    )
    known = study.user_attrs.get("identity")
    if known is None:
        study.set_user_attr("identity", dict(identity))
        _name_values(study, objectives)
    for key, value in identity.items():
        if known is not None and known.get(key) != value:
            there, here = _short(known.get(key)), _short(value)
            what = f"{there} there, {here} here" if there != here else "they differ in content"
            raise StudyError(
                f"{without_password(url)} holds study {name!r} with another {key}: {what}; "
                "choose another name or storage",
                key,
            )
    return study


def _name_values(study: optuna.Study, objectives: Sequence[Objective]) -> None:
    """Shows the names of the objectives in Optuna's dashboard."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.set_metric_names([o.name for o in objectives])


def _short(value: Any) -> str:
    text = str(value.get("name", value)) if isinstance(value, Mapping) else str(value)
    return repr(text if len(text) <= 80 else f"{text[:77]}…")


def read_trials(study: optuna.Study, names: Sequence[str]) -> tuple[TrialRecord, ...]:
    """Every trial of a record as a value, in order of number.

    Args:
        study: the record.
        names: of the objectives, in the order of the recorded values.
    """
    return tuple(read_trial(trial, names) for trial in study.get_trials(deepcopy=False))


def read_trial(trial: FrozenTrial, names: Sequence[str]) -> TrialRecord:
    """One trial as a value."""
    attrs, document = trial.user_attrs, Document(trial.user_attrs)
    values = trial.values if trial.state == TrialState.COMPLETE else None
    return TrialRecord(
        number=trial.number,
        state=_state(trial),
        config=document.config or PeftConfig(),
        values=dict(zip(names, values or (), strict=False)),
        known=document.known,
        reports=document.reports,
        baseline=document.baseline,
        error="interrupted" if is_interrupted(trial) else attrs.get("error", attrs.get("rejected")),
        seconds=attrs.get("seconds"),
        folder=attrs.get("folder") if trial.state == TrialState.COMPLETE else None,
        point=trial.params,
        repeat_of=attrs.get("repeat_of"),
    )


def is_interrupted(trial: FrozenTrial) -> bool:
    """Whether the process of a trial died or was stopped before the trial ended."""
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


def _state(trial: FrozenTrial) -> State:
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
