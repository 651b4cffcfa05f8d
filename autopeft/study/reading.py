"""Optuna's trials read from its tables, many at a time."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

import sqlalchemy as sql
from optuna.distributions import BaseDistribution, json_to_distribution
from optuna.trial import FrozenTrial, TrialState

from autopeft.study.ledger import PARAMS, STEPS, SYSTEM, TRIALS, USER, VALUES

_NUMBERS = {"INF_POS": math.inf, "INF_NEG": -math.inf, "NAN": math.nan}

Rows = dict[int, list[Any]]
"""Of a table, by the identity of their trial, in the order in which they were written."""


class Reader:
    """Reads all trials of a study; Optuna makes an object of every row, which takes ten times."""

    def __init__(self, engine: sql.Engine, tables: Mapping[str, sql.Table]) -> None:
        self._engine, self._tables = engine, tables

    def trials(self, study_id: int, *, params: bool = True) -> list[FrozenTrial]:
        """The trials of a study in order of number.

        Parameters can be left out; attributes of the user are then parsed when asked for.
        """
        table = self._tables[TRIALS]
        query = sql.select(table).where(table.c.study_id == study_id).order_by(table.c.trial_id)
        with self._engine.connect() as connection:
            trials = connection.execute(query).all()
            of = {
                name: self._rows(connection, name, study_id)
                for name in (VALUES, STEPS, USER, SYSTEM, *([PARAMS] if params else []))
            }
        return [
            _trial(row, {name: of[name].get(row.trial_id, ()) for name in of}) for row in trials
        ]

    def _rows(self, connection: sql.Connection, name: str, study_id: int) -> Rows:
        trials, table = self._tables[TRIALS], self._tables[name]
        (key,) = table.primary_key.columns
        query = sql.select(table).join(trials, trials.c.trial_id == table.c.trial_id)
        by_trial: Rows = defaultdict(list)
        for row in connection.execute(query.where(trials.c.study_id == study_id).order_by(key)):
            by_trial[row.trial_id].append(row)
        return by_trial


class Written(Mapping[str, Any]):
    """Attributes that are parsed when they are asked for."""

    def __init__(self, rows: Iterable[Any]) -> None:
        self._json = {row.key: row.value_json for row in rows}

    def __getitem__(self, key: str) -> Any:
        return json.loads(self._json[key])

    def __contains__(self, key: object) -> bool:
        return key in self._json

    def __iter__(self) -> Iterator[str]:
        return iter(self._json)

    def __len__(self) -> int:
        return len(self._json)


def _trial(row: Any, of: Mapping[str, Any]) -> FrozenTrial:
    written = Written(of[USER])
    user: Any = dict(written) if PARAMS in of else written
    params = of.get(PARAMS, ())
    distributions = {p.param_name: _distribution(p.distribution_json) for p in params}
    numbers = sorted(of[VALUES], key=lambda value: value.objective)
    return FrozenTrial(
        number=row.number,
        state=TrialState[row.state],
        value=None,
        values=[_NUMBERS.get(v.value_type, v.value) for v in numbers] or None,
        datetime_start=row.datetime_start,
        datetime_complete=row.datetime_complete,
        params={
            p.param_name: distributions[p.param_name].to_external_repr(p.param_value)
            for p in params
        },
        distributions=distributions,
        user_attrs=user,
        system_attrs={attr.key: json.loads(attr.value_json) for attr in of[SYSTEM]},
        intermediate_values={
            v.step: _NUMBERS.get(v.intermediate_value_type, v.intermediate_value) for v in of[STEPS]
        },
        trial_id=row.trial_id,
    )


@lru_cache
def _distribution(written: str) -> BaseDistribution:
    return json_to_distribution(written)
