"""Pieces of a page; what they are given as plain text is escaped."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from dataclasses import replace

from autopeft.objective.objective import Objective
from autopeft.report.summary import summary, words
from autopeft.report.value import valued
from autopeft.study.trial import TrialRecord


def text(value: object) -> str:
    """Anything as text, escaped."""
    return html.escape(str(value))


def section(heading: str, body: str) -> str:
    """A part of the page."""
    return f"<section><h2>{text(heading)}</h2>{body}</section>"


def folded_away(summary: str, body: str, trial: int | None = None) -> str:
    """What is shown when it is asked for; `summary` is escaped already."""
    mark = "" if trial is None else f' data-trial="{trial}"'
    return f"<details{mark}><summary>{summary}</summary><div class=body>{body}</div></details>"


def table(names: Iterable[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of plain names over cells that are escaped already."""
    head = "".join(f"<th>{text(name)}</th>" for name in names)
    body = "".join(f"<tr>{''.join(f'<td>{c}</td>' for c in row)}</tr>" for row in rows)
    return f"<div class=wide><table><tr>{head}</tr>{body}</table></div>"


def told_values(record: TrialRecord, objectives: Sequence[Objective]) -> list[str]:
    """The values of the objectives, from the plan where the trial is not complete."""
    filled = replace(record, values={**record.known, **record.values})
    return [text(valued(objective, filled)) for objective in objectives]


def number(record: TrialRecord, mark: str = "", chooses: bool = False) -> str:
    """The number of a trial with what makes it special; a button where it `chooses` the trial."""
    again = "" if record.repeat_of is None else f" {record.repeat_of} again"
    name = record.baseline or record.origin or ""
    label = f"{name}{mark}{again}".strip()
    told = str(record.number)
    if chooses:
        told = f"<button type=button class=number>{told}</button>"
    return f"{told} <small>{text(label)}</small>" if label else told


def configuration(record: TrialRecord) -> str:
    """The configuration of a trial, and how it is trained; of a one-shot search what it is."""
    if record.proposer is not None:
        return f"<code>{text(words(record))}</code>"
    train = ", ".join(
        f"{key} {value}" for key, value in (*record.config.train, *record.config.backbone)
    )
    return f"<code>{text(summary(record.config))}</code><small>{text(train)}</small>"
