"""The report of a study: one page of HTML that needs no other file and no network."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from autopeft.objective import pareto
from autopeft.objective.objective import Objective
from autopeft.report.baseline import compare
from autopeft.report.chart import chart
from autopeft.report.choice import pick
from autopeft.report.front import Front, losses
from autopeft.report.interactive import fragment, library, lines_figure, pareto_figure
from autopeft.report.seeds import folded
from autopeft.report.style import STYLESHEET
from autopeft.report.summary import summary
from autopeft.report.value import scored, tested, title, valued
from autopeft.study.trial import TrialRecord

FILE = "report.html"

MOST = 1000
"""Trials that a page draws and lists."""


def write_report(
    name: str,
    facts: Mapping[str, object],
    records: Sequence[TrialRecord],
    objectives: Sequence[Objective],
    folder: str | Path,
) -> Path:
    """Writes `report.html` into `folder`, which is made if need be.

    The page is a pure function of the arguments; every text in it is escaped.

    Args:
        name: of the study.
        facts: what the study is, such as its model, task and search space, as rows of a table.
        records: all trials.
        objectives: at least one.
        folder: where the page goes; an older page there is replaced.

    Returns:
        The path of the page.

    Raises:
        StudyError: no objective.
    """
    path = Path(folder) / FILE
    text = render(name, facts, records, tuple(objectives))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def render(
    name: str,
    facts: Mapping[str, object],
    records: Sequence[TrialRecord],
    objectives: tuple[Objective, ...],
) -> str:
    """The text of the page."""
    front = Front.of(records, objectives)
    chosen = _chosen(records, front)
    figure = fragment(pareto_figure(chart(chosen, objectives)))
    sections = [
        f"<h1>{_text(name)}</h1>",
        _facts(facts, records, objectives),
        _section("Pareto front", figure + _front_table(front)),
        _section("Against the standards", _baselines(records, objectives)),
        _section("Learning curves", _curves(chosen, objectives, front)),
        _section("Hypervolume", _hypervolume(records, objectives)),
        _section("All trials", _left_out(records, chosen) + _trial_table(chosen, objectives)),
    ]
    head = f"<style>{STYLESHEET}</style>\n{library()}"
    return _PAGE.format(title=_text(name), head=head, body="\n".join(sections))


def hypervolumes(records: Sequence[TrialRecord], objectives: Sequence[Objective]) -> list[float]:
    """The hypervolume after each trial of the study, in the space of losses.

    Only complete trials add to it; the corner is the reference of each objective.
    """
    corner = [o.worst for o in objectives]
    best, volumes = np.empty((0, len(objectives))), [0.0]
    for record in sorted(folded(records), key=lambda record: record.number):
        volumes.append(volumes[-1])
        row = np.array(losses(record, objectives)) if record.state == "complete" else None
        if row is not None and not (best <= row).all(axis=1).any():
            best = np.vstack([best[~(row <= best).all(axis=1)], row])
            volumes[-1] = pareto.hypervolume(best, corner)
    return volumes[1:]


def _chosen(records: Sequence[TrialRecord], front: Front) -> Sequence[TrialRecord]:
    """As many as a page holds: the latest, the front, and all that is trained more than once."""
    best = {trial.number for trial in front.trials}
    again = {record.repeat_of for record in records}
    beside = [
        record.number
        for record in records
        if record.repeat_of is None
        and record.baseline is None
        and record.number not in best | again
    ]
    left_out = set(beside[: max(0, len(records) - MOST)])
    return [record for record in records if record.number not in left_out]


def _left_out(records: Sequence[TrialRecord], chosen: Sequence[TrialRecord]) -> str:
    if len(chosen) == len(records):
        return ""
    n = f"{len(chosen):,} of {len(records):,} trials"
    return f"<p>{n} are drawn and listed: the front, baselines, repeats and the latest.</p>"


def _facts(
    facts: Mapping[str, object], records: Sequence[TrialRecord], objectives: Sequence[Objective]
) -> str:
    states = Counter(record.state for record in records)
    seconds = sum(record.seconds or 0.0 for record in records)
    rows: dict[str, object] = dict(facts)
    rows["objectives"] = ", ".join(title(objective) for objective in objectives)
    rows["trials"] = ", ".join(f"{n} {state}" for state, n in states.most_common()) or "none"
    rows["time in trials"] = f"{seconds / 60:.1f} min"
    lines = (f"<dt>{_text(key)}</dt><dd>{_text(value)}</dd>" for key, value in rows.items())
    return f"<dl>{''.join(lines)}</dl>"


def _front_table(front: Front) -> str:
    if not front.trials:
        return "<p>No trial is complete yet.</p>"
    knee = pick(front, "knee").number if len(front.trials) > 2 else None
    rows = [
        [
            _number(t, mark=" knee" if t.number == knee else ""),
            *_values(t, front.objectives),
            *_tests(t, front.objectives, front.trials),
            _what(t),
        ]
        for t in front.trials
    ]
    tests = _test_titles(front.objectives, front.trials)
    names = ["trial", *map(title, front.objectives), *tests, "configuration"]
    basis = f"{front.basis}; no trial was chosen by its test values" if tests else front.basis
    return f"<p>{_text(basis)}</p>{_table(names, rows)}"


def _baselines(records: Sequence[TrialRecord], objectives: Sequence[Objective]) -> str:
    """How the search fares against each baseline, in words and in a table."""
    comparisons = compare(records, objectives)
    if not comparisons:
        return "<p>No baseline was trained again with fresh seeds.</p>"
    tones = {1: "good", 0: "", -1: "bad"}
    told = [f"<li class='{tones[c.verdict]}'>{_text(c.sentence)}</li>" for c in comparisons]
    sides = [side for c in comparisons for side in (c.baseline, c.rival) if side is not None]
    trials = {side.number: side for side in sides}.values()
    names = ["trial", *map(title, objectives), *_test_titles(objectives, sides), "configuration"]
    rows = [
        [_number(t), *_values(t, objectives), *_tests(t, objectives, sides), _what(t)]
        for t in trials
    ]
    return f"<ul>{''.join(told)}</ul>{_table(names, rows)}"


def _test_titles(objectives: Sequence[Objective], trials: Iterable[TrialRecord]) -> list[str]:
    """Columns of the test split, where some trial was scored on it."""
    return [f"test {title(o)}" for o in scored(objectives, trials)]


def _tests(
    trial: TrialRecord, objectives: Sequence[Objective], trials: Iterable[TrialRecord]
) -> list[str]:
    return [_text(tested(o, trial)) for o in scored(objectives, trials)]


def _curves(records: Sequence[TrialRecord], objectives: Sequence[Objective], front: Front) -> str:
    """One plot per metric: the front's trials in colour, the others faint."""
    strong = {trial.number for trial in front.trials[:6]}
    ordered = sorted(records, key=lambda record: (record.number not in strong, record.number))
    learned_names = [objective.name for objective in objectives if not objective.known]
    parts = []
    for metric in dict.fromkeys([*learned_names, "validation_loss", "train_loss"]):
        lines = [line for record in ordered if (line := _curve(record, metric))]
        if lines:
            coloured = sum(1 for record in ordered if record.number in strong and record.reports)
            figure = lines_figure(lines, "epochs", metric.replace("_", " "), strong=coloured)
            parts.append(fragment(figure))
    return "".join(parts) or "<p>No report yet.</p>"


def _curve(record: TrialRecord, metric: str) -> tuple[str, list[float], list[float]] | None:
    """Name, epochs and values of one trial, None where it does not report the metric."""
    reports = [report for report in record.reports if metric in report.metrics]
    if not reports:
        return None
    values = [report.metrics[metric] for report in reports]
    return f"trial {record.number}", [report.fidelity for report in reports], values


def _hypervolume(records: Sequence[TrialRecord], objectives: Sequence[Objective]) -> str:
    volumes = hypervolumes(records, objectives)
    if not any(volumes):
        return "<p>No trial lies within the reference point yet.</p>"
    lines = [("hypervolume", list(range(1, len(volumes) + 1)), volumes)]
    return fragment(lines_figure(lines, "trials", "hypervolume", strong=1))


def _trial_table(records: Sequence[TrialRecord], objectives: Sequence[Objective]) -> str:
    rows = []
    for record in records:
        seconds = "–" if record.seconds is None else f"{record.seconds:.1f}"
        state = f'<span class="{_text(record.state)}">{_text(record.state)}</span>'
        cells = [_number(record), state, *_values(record, objectives), seconds, _what(record)]
        rows.append([*cells, _text(record.error or "")])
    names = ["trial", "state", *map(title, objectives), "seconds", "configuration", "error"]
    return _table(names, rows) if rows else "<p>No trial yet.</p>"


def _values(record: TrialRecord, objectives: Sequence[Objective]) -> list[str]:
    """The values of the objectives, from the plan where the trial is not complete."""
    filled = replace(record, values={**record.known, **record.values})
    return [_text(valued(objective, filled)) for objective in objectives]


def _number(record: TrialRecord, mark: str = "") -> str:
    again = "" if record.repeat_of is None else f" {record.repeat_of} again"
    label = f"{record.baseline or ''}{mark}{again}".strip()
    return f"{record.number} <small>{_text(label)}</small>" if label else str(record.number)


def _what(record: TrialRecord) -> str:
    train = ", ".join(
        f"{key} {value}" for key, value in (*record.config.train, *record.config.backbone)
    )
    return f"<code>{_text(summary(record.config))}</code><small>{_text(train)}</small>"


def _section(heading: str, body: str) -> str:
    return f"<section><h2>{_text(heading)}</h2>{body}</section>"


def _table(names: Iterable[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of plain names over cells that are escaped already."""
    head = "".join(f"<th>{_text(name)}</th>" for name in names)
    body = "".join(f"<tr>{''.join(f'<td>{c}</td>' for c in row)}</tr>" for row in rows)
    return f"<div class=wide><table><tr>{head}</tr>{body}</table></div>"


def _text(value: object) -> str:
    return html.escape(str(value))


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
{head}
</head>
<body><main>
{body}
</main></body>
</html>
"""
