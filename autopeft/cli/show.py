"""What the commands print."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from autopeft.api.outcome import Outcome
from autopeft.objective.objective import Objective
from autopeft.report.front import plain
from autopeft.report.summary import summary
from autopeft.report.value import shown, title
from autopeft.study.trial import State, TrialRecord

_console = Console(soft_wrap=False)
_STATES = get_args(State)


def print_json(value: Any) -> None:
    """Prints a value as JSON."""
    print(json.dumps(value, indent=2, allow_nan=False))


def say(text: str) -> None:
    """Prints a line."""
    _console.print(escape(text), highlight=False, soft_wrap=True)


def best_of(trials: Sequence[TrialRecord], objective: Objective) -> TrialRecord | None:
    """The complete trial with the best value of an objective."""
    complete = [t for t in trials if t.state == "complete"]
    return min(complete, key=lambda t: objective.loss(t.values[objective.name]), default=None)


def states_of(trials: Sequence[TrialRecord]) -> dict[str, int]:
    """How many trials are in each state; interrupted ones are not counted."""
    found = Counter(t.state for t in trials if t.error != "interrupted")
    return {state: found[state] for state in _STATES}


def status_of(outcome: Outcome) -> dict[str, Any]:
    """The status of a study as plain values."""
    best = {}
    for objective in outcome.objectives:
        trial = best_of(outcome.trials, objective)
        if trial is not None:
            value = plain(objective, trial.values)
            best[objective.name] = {"trial": trial.number, "value": value}
    return {
        "study": outcome.spec.name,
        "n_trials": outcome.spec.search.n_trials,
        "states": states_of(outcome.trials),
        "best": best,
        "hypervolume": outcome.hypervolume,
        "seconds_left": seconds_left(outcome.trials, outcome.spec.search.n_trials),
    }


def seconds_left(trials: Sequence[TrialRecord], n_trials: int) -> float | None:
    """An estimate from the trials so far: their mean time and how many ran side by side.

    None before the first trial has ended.
    """
    ended = [t.seconds for t in trials if t.seconds is not None and t.error != "interrupted"]
    if not ended:
        return None
    states = states_of(trials)
    done = states["complete"] + states["stopped"] + states["failed"]
    left = max(0, n_trials - done)
    return sum(ended) / len(ended) * left / max(1, states["running"])


def show_front(outcome: Outcome) -> None:
    """Prints the front as a table."""
    table = Table(title=f"Pareto front of {outcome.spec.name}", title_justify="left")
    table.add_column("trial", justify="right")
    for objective in outcome.objectives:
        table.add_column(title(objective), justify="right", no_wrap=True)
    table.add_column("configuration", overflow="fold")
    for trial in outcome.front.trials:
        values = (shown(o, trial.values[o.name]) for o in outcome.objectives)
        name = f"[{trial.baseline}] " if trial.baseline else ""
        table.add_row(str(trial.number), *values, escape(name + summary(trial.config)))
    _console.print(table)


def show_status(outcome: Outcome) -> None:
    """Prints the status of a study."""
    status = status_of(outcome)
    counts = ", ".join(f"{n} {state}" for state, n in status["states"].items() if n)
    say(f"{status['study']}: {counts or 'no trials'} of {status['n_trials']}")
    for objective in outcome.objectives:
        trial = best_of(outcome.trials, objective)
        if trial is not None:
            value = shown(objective, trial.values[objective.name])
            say(f"  best {title(objective)} {value}  trial {trial.number}  {summary(trial.config)}")
    say(f"  hypervolume {status['hypervolume']:.4f}")
    left = status["seconds_left"]
    say("  time left unknown" if left is None else f"  time left about {duration(left)}")


def show_next(study: str, outcome: Outcome) -> None:
    """Prints what to do with a finished study."""
    name = outcome.spec.name
    say("")
    say("Next:")
    say(f"  autopeft pareto {study} --plot {name}.png")
    say(f"  autopeft report {study} --output {name}-report")
    say(f"  autopeft export {study} --pick best --format native --output {name}-best")


def show_plan(plan: Mapping[str, Any]) -> None:
    """Prints a plan as two columns."""
    table = Table(
        title=f"{plan['name']} on {plan['model']}", title_justify="left", show_header=False
    )
    table.add_column()
    table.add_column(justify="right", overflow="fold")
    for key, value in plan.items():
        if key not in {"name", "model", "config", "kind"}:
            _plan_rows(table, key, value)
    _console.print(table)


def _plan_rows(table: Table, key: str, value: Any, indent: str = "") -> None:
    label = indent + key.replace("_", " ")
    if isinstance(value, Mapping):
        table.add_row(label, "")
        for inner, item in value.items():
            unit = "peak_memory" if key == "peak_memory_parts" else inner
            _plan_rows(table, inner, _readable(unit, item), indent + "  ")
    else:
        table.add_row(label, escape(str(_readable(key, value))))


def _readable(key: str, value: Any) -> Any:
    if isinstance(value, list):
        return " to ".join(str(_readable(key, v)) for v in value) if value else "none"
    if not isinstance(value, int | float) or isinstance(value, bool):
        return value
    return f"{value / 1e9:,.3f} GB" if key == "peak_memory" else f"{value:,}"


def show_entries(entries: Sequence[Mapping[str, str]]) -> None:
    """Prints names with one line each."""
    width = max((len(entry["name"]) for entry in entries), default=0)
    for entry in entries:
        say(f"{entry['name']:<{width}}  {entry['description']}")


def duration(seconds: float) -> str:
    """A time as people say it."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return (
        f"{hours} h {minutes} min"
        if hours
        else f"{minutes} min {rest} s"
        if minutes
        else f"{rest} s"
    )
