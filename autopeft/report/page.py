"""The report of a study: one page of HTML that needs no other file and no network."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from autopeft.core.errors import StudyError
from autopeft.core.report import MEASURED
from autopeft.objective import pareto
from autopeft.objective.objective import Objective
from autopeft.report.baseline import POINTS, Comparison, compare
from autopeft.report.chart import chart
from autopeft.report.choice import choose, pick
from autopeft.report.front import Front, losses
from autopeft.report.interactive import (
    against_figure,
    effects_figure,
    fragment,
    library,
    lines_figure,
    pareto_figure,
    solid_figure,
)
from autopeft.report.learned import learned
from autopeft.report.markup import (
    configuration,
    folded_away,
    number,
    section,
    table,
    text,
    told_values,
)
from autopeft.report.pictures import pictures
from autopeft.report.seeds import folded
from autopeft.report.value import scored, tested, title
from autopeft.study.trial import TrialRecord

FILE = "report.html"

PREDICTED = "peak_memory"

MOST = 1000
"""Trials that a page draws and lists."""


def write_report(
    name: str,
    facts: Mapping[str, object],
    records: Sequence[TrialRecord],
    objectives: Sequence[Objective],
    folder: str | Path,
    reference: Sequence[str] = (),
) -> Path:
    """Writes `report.html` into `folder`, which is made if need be; see `body`.

    Returns:
        The path of the page; an older page there is replaced.

    Raises:
        StudyError: no objective.
    """
    path = Path(folder) / FILE
    whole = page(name, body(name, facts, records, objectives, reference))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(whole, encoding="utf-8")
    return path


def page(name: str, content: str, more: str = "") -> str:
    """The page about a study, which needs no other file.

    Args:
        name: of the study.
        content: what it tells, see `body`.
        more: elements of its head beside those that the content needs.
    """
    return _PAGE.format(title=text(name), head=library() + more, body=content)


def body(
    name: str,
    facts: Mapping[str, object],
    records: Sequence[TrialRecord],
    objectives: Sequence[Objective],
    reference: Sequence[str] = (),
) -> str:
    """What a page tells, a pure function of the arguments; every text in it is escaped.

    Args:
        name: of the study.
        facts: what the study is, such as its model, task and search space, as rows of a table.
        records: all trials.
        objectives: at least one.
        reference: arguments by which commands find the study; its name by default.

    Raises:
        StudyError: no objective.
    """
    objectives = tuple(objectives)
    front = Front.of(records, objectives)
    comparisons = compare(records, objectives)
    chosen = _chosen(records, front)
    content = chart(chosen, objectives)
    solid = folded_away("In three dimensions", fragment(solid_figure(content)))
    figure = fragment(pareto_figure(content)) + (solid if content.colour else "")
    sections = [
        f"<h1>{text(name)}</h1>",
        _facts(facts, records, objectives),
        section("Recommendation", _recommended(front) + _told(comparisons)),
        section("Pareto front", figure + _front_table(front)),
        section("The front, drawn", pictures(front, chosen, name, reference or (name,))),
        _baselines(comparisons, objectives),
        section("What the search has learned", _effects(records, objectives)),
        section("Learning curves", _curves(chosen, objectives, front)),
        _memory(records),
        section("Hypervolume", _hypervolume(records, objectives)),
        section("All trials", _left_out(records, chosen) + _trial_table(chosen, objectives)),
    ]
    return "\n".join(sections)


def hypervolumes(records: Sequence[TrialRecord], objectives: Sequence[Objective]) -> list[float]:
    """The hypervolume after each trial of the study, in the space of losses.

    Only complete trials add to it; the corner is the reference of each objective.
    """
    return _grown(sorted(folded(records), key=lambda record: record.number), objectives)


def _grown(ordered: Iterable[TrialRecord], objectives: Sequence[Objective]) -> list[float]:
    """The hypervolume after each of some trials."""
    corner = [o.worst for o in objectives]
    best, volumes = np.empty((0, len(objectives))), [0.0]
    for record in ordered:
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
    lines = (f"<dt>{text(key)}</dt><dd>{text(value)}</dd>" for key, value in rows.items())
    return f"<dl>{''.join(lines)}</dl>"


def _recommended(front: Front) -> str:
    """One sentence for each way to choose, those that choose alike told once."""
    reasons: dict[int, str] = {}
    for rule in ("best", "cheapest", "knee"):
        try:
            choice = choose(front, rule)
        except StudyError:
            continue
        reasons.setdefault(choice.trial.number, choice.reason)
    told = "".join(f"<p class=lead>{text(reason)}</p>" for reason in reasons.values())
    return told or "<p>No trial is complete yet.</p>"


def _told(comparisons: Sequence[Comparison]) -> str:
    """Whether what is recommended is real: how the search fares against each baseline."""
    if not comparisons:
        return "<p>No baseline was trained again with fresh seeds.</p>"
    tones = {1: "good", 0: "", -1: "bad"}
    told = [f"<li class='{tones[c.verdict]}'>{text(c.sentence)}</li>" for c in comparisons]
    return f"<ul>{''.join(told)}</ul>"


def _effects(records: Sequence[TrialRecord], objectives: Sequence[Objective]) -> str:
    """What each choice does on average, with intervals."""
    found = learned(records, objectives)
    if found is None or not found.effects:
        return "<p>Too few trials have ended to tell.</p>"
    unit = "points" if found.unit == POINTS else found.objective.name.replace("_", " ")
    told = f"<p class=lead>{text(found.sentence)}</p>" if found.sentence else ""
    about = "averages over trained configurations, everything else as it is; 95 % intervals"
    return f"{told}{fragment(effects_figure(found.rows, unit))}<p>{about}</p>"


def _front_table(front: Front) -> str:
    if not front.trials:
        return "<p>No trial is complete yet.</p>"
    knee = pick(front, "knee").number if len(front.trials) > 2 else None
    rows = [
        [
            number(t, mark=" knee" if t.number == knee else ""),
            *told_values(t, front.objectives),
            *_tests(t, front.objectives, front.trials),
            configuration(t),
        ]
        for t in front.trials
    ]
    tests = _test_titles(front.objectives, front.trials)
    names = ["trial", *map(title, front.objectives), *tests, "configuration"]
    basis = f"{front.basis}; no trial was chosen by its test values" if tests else front.basis
    return f"<p>{text(basis)}</p>{table(names, rows)}"


def _baselines(comparisons: Sequence[Comparison], objectives: Sequence[Objective]) -> str:
    """The baselines and what they are compared with, as a table; nothing without those."""
    if not comparisons:
        return ""
    sides = [side for c in comparisons for side in (c.baseline, c.rival) if side is not None]
    trials = {side.number: side for side in sides}.values()
    names = ["trial", *map(title, objectives), *_test_titles(objectives, sides), "configuration"]
    rows = [
        [number(t), *told_values(t, objectives), *_tests(t, objectives, sides), configuration(t)]
        for t in trials
    ]
    return section("Against the standards", table(names, rows))


def _test_titles(objectives: Sequence[Objective], trials: Iterable[TrialRecord]) -> list[str]:
    """Columns of the test split, where some trial was scored on it."""
    return [f"test {title(o)}" for o in scored(objectives, trials)]


def _tests(
    trial: TrialRecord, objectives: Sequence[Objective], trials: Iterable[TrialRecord]
) -> list[str]:
    return [text(tested(o, trial)) for o in scored(objectives, trials)]


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


def _memory(records: Sequence[TrialRecord]) -> str:
    """What was predicted against what a GPU was seen to take; nothing where neither is known."""
    both = [
        (f"trial {record.number}", record.known[PREDICTED], record.reports[-1].metrics[MEASURED])
        for record in records
        if PREDICTED in record.known and record.reports and MEASURED in record.reports[-1].metrics
    ]
    if not both:
        return ""
    off = [abs(measured / predicted - 1) for _, predicted, measured in both]
    middle, most = np.median(off), max(off)
    told = f"{len(both)} trainings: {middle:.1%} apart in the middle, {most:.1%} at most"
    figure = against_figure(both, "predicted bytes", "measured bytes")
    return section("Memory", f"<p class=lead>{text(told)}</p>{fragment(figure)}")


def _hypervolume(records: Sequence[TrialRecord], objectives: Sequence[Objective]) -> str:
    volumes = hypervolumes(records, objectives)
    if not any(volumes):
        return "<p>No trial lies within the reference point yet.</p>"
    over_trials = [("hypervolume", list(range(1, len(volumes) + 1)), volumes)]
    figure = fragment(lines_figure(over_trials, "trials", "hypervolume", strong=1))
    over_hours = _over_hours(records, objectives)
    if not over_hours[0]:
        return figure
    lines = [("hypervolume", *over_hours)]
    hours = fragment(lines_figure(lines, "hours", "hypervolume", strong=1))
    return figure + folded_away("Over hours", hours)


def _over_hours(
    records: Sequence[TrialRecord], objectives: Sequence[Objective]
) -> tuple[list[float], list[float]]:
    """Hours since the first trial began, and the hypervolume of what had ended by then."""
    timed = [r for r in folded(records) if r.ended is not None and r.began is not None]
    timed.sort(key=lambda record: record.ended or 0.0)
    begun = min((record.began or 0.0 for record in timed), default=0.0)
    hours = [((record.ended or 0.0) - begun) / 3600 for record in timed]
    return hours, _grown(timed, objectives)


def _trial_table(records: Sequence[TrialRecord], objectives: Sequence[Objective]) -> str:
    """All trials, to be filtered and sorted."""
    if not records:
        return "<p>No trial yet.</p>"
    names = ["trial", "state", *map(title, objectives), "seconds", "configuration", "error"]
    heads = "".join(f"<th><button type=button>{text(name)}</button></th>" for name in names)
    rows = "".join(_row(record, objectives) for record in records)
    field = (
        '<input type=search data-table=trials placeholder="filter: words that a row holds" '
        'aria-label="filter trials"><small></small>'
    )
    table = f"<table id=trials><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>"
    return f"{field}<div class=wide>{table}</div>"


def _row(record: TrialRecord, objectives: Sequence[Objective]) -> str:
    values = {**record.known, **record.values}
    seconds = "–" if record.seconds is None else f"{record.seconds:.1f}"
    state = f'<span class="{text(record.state)}">{text(record.state)}</span>'
    measured = "".join(
        f'<td data-value="{values.get(objective.name, "")}">{told}</td>'
        for objective, told in zip(objectives, told_values(record, objectives), strict=True)
    )
    which = number(record, chooses=True)
    cells = f"<td>{which}</td><td>{state}</td>{measured}<td>{seconds}</td>"
    what = f"<td>{configuration(record)}</td><td>{text(record.error or '')}</td>"
    return f'<tr data-trial="{record.number}">{cells}{what}</tr>'


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
