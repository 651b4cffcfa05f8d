"""Trials as a data frame of pandas."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from autopeft.objective.objective import Objective
from autopeft.report.summary import summary
from autopeft.study.trial import TrialRecord

if TYPE_CHECKING:
    from pandas import DataFrame


def frame(records: Iterable[TrialRecord], objectives: Sequence[Objective]) -> DataFrame:
    """One row a trial, by its number.

    The columns are its state, baseline and the trial that it repeats, its objectives, those of the
    test split, where it is a mean of fresh trainings their number and half the widths of its 95 %
    intervals, the epochs and seconds of its training, and the configuration in words and as a
    mapping.
    """
    from pandas import DataFrame  # takes longer than all else here

    rows = [_row(record, objectives) for record in records]
    columns = dict.fromkeys(name for row in rows for name in row)
    return DataFrame(rows, columns=[*columns] or ["trial"]).set_index("trial")


def _row(record: TrialRecord, objectives: Sequence[Objective]) -> dict[str, Any]:
    values = {**record.known, **record.values}
    row: dict[str, Any] = {
        "trial": record.number,
        "state": record.state,
        "baseline": record.baseline,
        "repeat_of": record.repeat_of,
        "proposer": record.proposer,
        "origin": record.origin,
        **{o.name: values.get(o.name) for o in objectives},
        **{f"{name}_margin": margin for name, margin in record.margins.items()},
        **{f"test_{o.name}": record.test[o.name] for o in objectives if o.name in record.test},
        **{f"test_{name}_margin": margin for name, margin in record.test_margins.items()},
    }
    own = {"epochs": record.epochs, "seconds": record.seconds, "n_seeds": record.n_seeds}
    return {**row, **own, "summary": summary(record.config), "config": record.config.to_dict()}
