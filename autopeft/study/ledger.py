"""The few statements that `storage.py` sends to Optuna's tables itself, many rows at a time."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import sqlalchemy as sql
from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages._rdb.models import BaseModel
from optuna.trial import TrialState

GONE = "Record does not exist."
"""What Optuna says of a study or a trial that was deleted."""

TRIALS, PARAMS, VALUES = "trials", "trial_params", "trial_values"
STEPS, USER, SYSTEM = (
    "trial_intermediate_values",
    "trial_user_attributes",
    "trial_system_attributes",
)

OWNER = "owner"
"""The user's attribute that says which process trains a trial, or trained it last."""

Attrs = dict[str, Any]


@dataclass
class Entry:
    """What is to be written of one trial.

    Attributes:
        params: Optuna's internal value and the distribution, by name.
        user: attributes of the user.
        system: attributes of Optuna.
        stored: the keys of attributes, with their table, that the storage has already.
    """

    params: dict[str, tuple[float, BaseDistribution]] = field(default_factory=dict)
    user: Attrs = field(default_factory=dict)
    system: Attrs = field(default_factory=dict)
    stored: set[tuple[str, str]] = field(default_factory=set)


@dataclass(frozen=True)
class End:
    """How a trial ends, and when; values are finite."""

    state: TrialState
    values: tuple[float, ...]
    time: datetime


def complete(engine: sql.Engine) -> None:
    """Makes the indexes of Optuna's tables that a process which was killed has not come to.

    Without that of the names two studies may have one.
    """
    for table in BaseModel.metadata.sorted_tables:
        for index in table.indexes:
            index.create(engine, checkfirst=True)


def tables_of(engine: sql.Engine) -> dict[str, sql.Table]:
    """Optuna's tables of trials by name, as they are found."""
    metadata = sql.MetaData()
    return {
        name: sql.Table(name, metadata, autoload_with=engine, resolve_fks=False)
        for name in (TRIALS, PARAMS, VALUES, STEPS, USER, SYSTEM)
    }


class Ledger:
    """Writes into the tables of trials, and asks what others have written.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: see SQLAlchemy; so do all methods.
    """

    def __init__(self, engine: sql.Engine, tables: Mapping[str, sql.Table]) -> None:
        self._engine = engine
        self._trials, self._params, self._values = (tables[n] for n in (TRIALS, PARAMS, VALUES))
        self._user, self._system = tables[USER], tables[SYSTEM]

    def started(self, trial_id: int) -> tuple[int, datetime]:
        """Number and start of a trial."""
        columns = self._trials.c
        query = sql.select(columns.number, columns.datetime_start)
        with self._engine.connect() as connection:
            row = connection.execute(query.where(columns.trial_id == trial_id)).one_or_none()
        if row is None:
            raise KeyError(GONE)
        return row.number, row.datetime_start

    def states(self, study_id: int, after: int, watched: Collection[int]) -> dict[int, TrialState]:
        """States of the trials of a study that have an identity above `after` or are watched."""
        columns = self._trials.c
        selected = columns.trial_id > after
        if watched:
            selected |= columns.trial_id.in_(watched)
        query = sql.select(columns.trial_id, columns.state).where(columns.study_id == study_id)
        with self._engine.connect() as connection:
            rows = connection.execute(query.where(selected).order_by(columns.trial_id))
            return {row.trial_id: TrialState[row.state] for row in rows}

    def sizes(self, trials: Collection[int]) -> dict[int, int]:
        """How many characters the user's attributes of trials have; any addition changes it."""
        columns = self._user.c
        size = sql.func.sum(sql.func.length(columns.value_json) + 1)
        query = sql.select(columns.trial_id, size).where(columns.trial_id.in_(trials))
        with self._engine.connect() as connection:
            rows = connection.execute(query.group_by(columns.trial_id))
            return {int(trial_id): int(n) for trial_id, n in rows}

    def claim(self, trial_id: int, attrs: Attrs) -> bool:
        """Starts a waiting trial, with attributes of the user; whether nobody has been faster."""
        waits = self._trials.c.state == TrialState.WAITING.name
        started = {"state": TrialState.RUNNING.name, "datetime_start": datetime.now()}
        return self._turned(trial_id, waits, started, attrs)

    def release(self, trial_id: int, owner: Any, attrs: Attrs) -> bool:
        """Lets a trial wait that an owner trains, with attributes; whether it was still his."""
        runs = self._trials.c.state == TrialState.RUNNING.name
        written = self._owner(trial_id)
        his = written.is_(None) if owner is None else written == json.dumps(owner)
        waiting = {"state": TrialState.WAITING.name, "datetime_start": None}
        return self._turned(trial_id, runs & his, waiting, attrs)

    def write(self, trial_id: int, entry: Entry, end: End | None, owner: Any) -> None:
        """Writes an entry, and the end of the trial where there is one, in one transaction.

        Raises:
            UpdateFinishedTrialError: the owner does not train the trial any more.
            KeyError: there is no such trial.
        """
        columns = self._trials.c
        query = sql.select(columns.state, self._owner(trial_id)).where(columns.trial_id == trial_id)
        with self._engine.begin() as connection:
            row = connection.execute(query.with_for_update(of=self._trials)).one_or_none()
            if row is None:
                raise KeyError(GONE)
            state, written = row
            if state != TrialState.RUNNING.name or (owner and written != json.dumps(owner)):
                raise UpdateFinishedTrialError(f"trial {trial_id} is {state.lower()} elsewhere")
            if entry.params:
                connection.execute(sql.insert(self._params), _param_rows(trial_id, entry))
            for table, attrs in ((self._user, entry.user), (self._system, entry.system)):
                _write_attrs(connection, table, trial_id, attrs, entry.stored)
            if end is not None:
                self._end(connection, trial_id, end)

    def _turned(
        self, trial_id: int, where: sql.ColumnElement[bool], change: Attrs, attrs: Attrs
    ) -> bool:
        """Changes a trial that is as expected, and its attributes of the user; whether it was."""
        this = (self._trials.c.trial_id == trial_id) & where
        with self._engine.begin() as connection:
            if connection.execute(sql.update(self._trials).where(this), change).rowcount != 1:
                return False
            columns = self._user.c
            old = (columns.trial_id == trial_id) & columns.key.in_(list(attrs))
            connection.execute(sql.delete(self._user).where(old))
            _write_attrs(connection, self._user, trial_id, attrs, set())
        return True

    def _owner(self, trial_id: int) -> sql.ScalarSelect[Any]:
        """Who trains a trial, or trained it last."""
        columns = self._user.c
        here = (columns.trial_id == trial_id) & (columns.key == OWNER)
        return sql.select(columns.value_json).where(here).scalar_subquery()

    def _end(self, connection: sql.Connection, trial_id: int, end: End) -> None:
        if end.values:
            rows = [
                {"trial_id": trial_id, "objective": i, "value": value, "value_type": "FINITE"}
                for i, value in enumerate(end.values)
            ]
            connection.execute(sql.insert(self._values), rows)
        change = sql.update(self._trials).where(self._trials.c.trial_id == trial_id)
        changed = change.values(state=end.state.name, datetime_complete=end.time)
        connection.execute(changed)


def _param_rows(trial_id: int, entry: Entry) -> list[Attrs]:
    return [
        {
            "trial_id": trial_id,
            "param_name": name,
            "param_value": value,
            "distribution_json": distribution_to_json(distribution),
        }
        for name, (value, distribution) in entry.params.items()
    ]


def _write_attrs(
    connection: sql.Connection,
    table: sql.Table,
    trial_id: int,
    attrs: Mapping[str, Any],
    stored: set[tuple[str, str]],
) -> None:
    rows = [{"trial_id": trial_id, "key": k, "value_json": json.dumps(v)} for k, v in attrs.items()]
    new = [row for row in rows if (table.name, row["key"]) not in stored]
    if new:
        connection.execute(sql.insert(table), new)
    for row in rows:
        if (table.name, row["key"]) in stored:
            here = (table.c.trial_id == trial_id) & (table.c.key == row["key"])
            connection.execute(sql.update(table).where(here).values(value_json=row["value_json"]))
    stored.update((table.name, key) for key in attrs)
