"""What the commands print."""

from __future__ import annotations

import json
import shlex
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import yaml
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from autopeft.api.outcome import Outcome
from autopeft.cli.remaining import ended, planned, seconds_left
from autopeft.core.errors import redacted
from autopeft.core.options import is_finite
from autopeft.core.quantity import duration, prefixed
from autopeft.objective.objective import Objective
from autopeft.report.front import Front, plain
from autopeft.report.learned import learned
from autopeft.report.seeds import contenders, folded
from autopeft.report.summary import summary
from autopeft.report.value import scored, shown, tested, title, valued
from autopeft.report.versus import Versus
from autopeft.study.trial import State, TrialRecord

if TYPE_CHECKING:
    from autopeft.api.doctor import Diagnosis, Finding  # imports torch
    from autopeft.api.draft import Draft

_console = Console(soft_wrap=False)
_STATES = get_args(State)
_UNITS = {"peak_memory": "B", "peak_memory_parts": "B", "flops": "FLOP", "training_flops": "FLOP"}
"""Units of what a plan tells, by key; all else is counted."""


def print_json(value: Any) -> None:
    """Prints a value as JSON."""
    print(json.dumps(value, indent=2, allow_nan=False))


def say(text: str) -> None:
    """Prints a line."""
    _console.print(escape(text), highlight=False, soft_wrap=True)


def best_of(trials: Sequence[TrialRecord], objective: Objective) -> TrialRecord | None:
    """The complete trial with the best value of an objective."""
    return min(
        contenders(trials), key=lambda t: objective.loss(t.values[objective.name]), default=None
    )


def states_of(trials: Sequence[TrialRecord]) -> dict[str, int]:
    """How many trials are in each state."""
    counts = Counter(t.state for t in trials)
    return {state: counts[state] for state in _STATES}


def status_of(outcome: Outcome) -> dict[str, Any]:
    """The status of a study as plain values."""
    best = {}
    spec = outcome.spec
    left = seconds_left(outcome.trials, spec.search, spec.fidelity, time.time())
    found = learned(outcome.trials, outcome.objectives)
    for objective in outcome.objectives:
        trial = best_of(outcome.trials, objective)
        if trial is not None:
            value = plain(objective, trial.values)
            best[objective.name] = {"trial": trial.number, "value": value}
    return {
        "study": spec.name,
        "n_trials": planned(outcome.trials, spec.search, spec.fidelity),
        "states": states_of(outcome.trials),
        "best": best,
        "hypervolume": outcome.hypervolume,
        "learned": found.sentence if found else "",
        "seconds_left": None if outcome.ended else left,
        "ended": outcome.ended,
    }


def front_of(outcome: Outcome) -> dict[str, Any]:
    """The front of a study and its comparison with baselines as plain values."""
    comparisons = [comparison.to_dict() for comparison in outcome.comparisons]
    return {**outcome.front.to_dict(), "against_baselines": comparisons}


def show_front(outcome: Outcome) -> None:
    """Prints the front as a table."""
    front = outcome.front
    tests = scored(outcome.objectives, front.trials)
    limits = "".join(f", {name} up to {most}" for name, most in outcome.limits.items())
    say(f"Pareto front of {outcome.spec.name}{limits}: {front.basis}")
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("trial", justify="right")
    for objective in outcome.objectives:
        table.add_column(_two_lines(title(objective)), justify="right", no_wrap=True)
    for objective in tests:
        table.add_column(f"test\n{title(objective)}", justify="right", no_wrap=True)
    table.add_column("configuration")
    for trial in front.trials:
        values = (shown(o, trial.values[o.name]) for o in outcome.objectives)
        scores = (tested(o, trial) for o in tests)
        name = f"{trial.baseline}: " if trial.baseline else ""
        table.add_row(str(trial.number), *values, *scores, escape(name + summary(trial.config)))
    _console.print(table)
    for comparison in outcome.comparisons:
        say(comparison.sentence)


def trial_of(outcome: Outcome, number: int) -> dict[str, Any]:
    """A trial with its means over fresh seeds as plain values."""
    mean = next(trial for trial in folded(outcome.trials) if trial.number == number)
    alone = Front(outcome.objectives, (mean,)).to_dict()
    told = [comparison.to_dict() for comparison in outcome.against_baselines(number)]
    return {**alone["front"][0], "against_baselines": told}


def show_means(outcome: Outcome, number: int) -> None:
    """Prints what fresh trainings say of a trial, and how it fares against each baseline."""
    mean = next(trial for trial in folded(outcome.trials) if trial.number == number)
    say(f"trial {number}: {summary(mean.config)}")
    for objective in outcome.objectives:
        test = f", {tested(objective, mean)} on the test split" if mean.test else ""
        test = "" if objective.known else f" on the validation split{test}"
        say(f"  {title(objective)} {valued(objective, mean)}{test}")
    say(f"  {mean.n_seeds} fresh trainings")
    for comparison in outcome.against_baselines(number):
        say(comparison.sentence)


def show_versus(both: Versus) -> None:
    """Prints two studies as columns."""
    sides = both.first, both.second
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("")
    for side in sides:
        table.add_column(escape(side.name), justify="right")
    table.add_row("trials", *(f"{side.n_trials:,}" for side in sides))
    table.add_row("time in trials", *(duration(side.seconds) for side in sides))
    table.add_row("hypervolume", *(f"{side.hypervolume:.4f}" for side in sides))
    for objective in both.first.front.objectives:
        best = (side.best(objective) for side in sides)
        table.add_row(f"best {title(objective)}", *(valued(objective, t) for t in best if t))
    ahead = (f"{len(side.leading)} of {len(side.front.trials)}" for side in sides)
    table.add_row("of its front, ahead of the other", *ahead)
    _console.print(table)
    for side in sides:
        say(f"{side.name}: {side.front.basis}")
    if both.differing:
        say(f"they were begun with another {', another '.join(both.differing)}")
    say(both.sentence)


def _two_lines(text: str) -> str:
    """`trainable params ↓` as narrow as may be, its arrow beside the last word."""
    *words, last, arrow = text.split()
    return "\n".join((" ".join(words), f"{last} {arrow}")) if words else text


def show_status(outcome: Outcome) -> None:
    """Prints the status of a study."""
    status = status_of(outcome)
    counts = ", ".join(f"{n} {state}" for state, n in status["states"].items() if n)
    done = ended(outcome.trials)
    say(f"{status['study']}: {done} of {status['n_trials']} trials ({counts or 'none yet'})")
    for objective in outcome.objectives:
        trial = best_of(outcome.trials, objective)
        if trial is not None:
            value = shown(objective, trial.values[objective.name])
            say(f"  best {title(objective)} {value}  trial {trial.number}  {summary(trial.config)}")
    say(f"  hypervolume {status['hypervolume']:.4f}")
    if status["learned"]:
        say(f"  learned: {status['learned']}")
    left = status["seconds_left"]
    if outcome.ended:
        say(f"  ended early: {outcome.ended}")
    elif done < status["n_trials"]:
        say(f"  time left {'unknown' if left is None else f'about {duration(left)}'}")


def show_next(study: Sequence[str], name: str) -> None:
    """Prints what to do with a finished study.

    Args:
        study: the arguments that name it.
        name: of the study, for files.
    """
    say("Next:")
    for command, *options in (
        ("pareto", "--plot", f"{name}.png"),
        ("report", "--output", f"{name}-report"),
        ("export", "--pick", "best", "--format", "native", "--output", f"{name}-best"),
    ):
        say(f"  {redacted(shlex.join(['autopeft', command, *study, *options]))}")


def show_plan(plan: Mapping[str, Any]) -> None:
    """Prints a plan as two columns."""
    say(f"{plan['name']} on {plan['model']}")
    table = Table(box=None, padding=(0, 2), show_header=False)
    table.add_column()
    table.add_column(justify="right", overflow="fold")
    for key, value in plan.items():
        if key not in {"name", "model", "config", "kind", "fit"} and value != {}:
            _plan_rows(table, key, value)
    _console.print(table)
    if "fit" in plan:
        _show_fit(plan["fit"])


def _show_fit(fit: Mapping[str, Any]) -> None:
    """Prints with which settings a configuration fits, as sections of its file."""
    limit, peak = (f"{_scaled(fit[key])}B" for key in ("limit", "peak_memory"))
    changed = {key.partition(".")[0] for key in fit["changes"]}
    if fit["fits"]:
        how = "with these sections" if changed else "as it is"
        say(f"fits into {limit} {how}: {peak} at the peak")
    else:
        say(f"does not fit into {limit}; the least is {peak}" + (", with" if changed else ""))
    for name in sorted(changed, reverse=True):
        say(yaml.safe_dump({name: fit[name]}, sort_keys=False).rstrip())


def _plan_rows(table: Table, key: str, value: Any, unit: str = "", indent: str = "") -> None:
    unit = _UNITS.get(key, unit)
    label = indent + key.replace("_", " ")
    if isinstance(value, Mapping):
        table.add_row(label, "")
        for inner, item in value.items():
            _plan_rows(table, inner, item, unit, indent + "  ")
    else:
        table.add_row(label, escape(_readable(value, unit)))


def _readable(value: Any, unit: str) -> str:
    if isinstance(value, list):
        join = " to " if all(is_finite(item) for item in value) else ", "
        return join.join(_readable(item, unit) for item in value) or "none"
    if not is_finite(value):
        return str(value)
    return f"{_scaled(value)}{unit}" if unit else f"{value:,}"


def _scaled(value: float) -> str:
    """With a decimal prefix: `593 M`, `1.89 G`."""
    return " ".join(prefixed(value, 4))


def show_diagnosis(diagnosis: Diagnosis) -> None:
    """Prints facts, then what is odd, each with what to do about it."""
    _show_facts({**diagnosis.machine, **diagnosis.study})
    _show_findings(diagnosis.findings)
    if not diagnosis.findings:
        say("nothing is odd")


def show_draft(draft: Draft, path: Path) -> None:
    """Prints what was understood, what is odd, and what to do with the study file."""
    _show_facts(draft.understood)
    _show_findings(draft.findings)
    say(f"written to {path}; next:")
    for command in ("doctor", "run"):
        say(f"  {shlex.join(['autopeft', command, str(path)])}")


def _show_facts(facts: Mapping[str, str]) -> None:
    width = max(map(len, facts), default=0)
    for name, fact in facts.items():
        say(f"{name:<{width}}  {fact}")


def _show_findings(findings: Sequence[Finding]) -> None:
    for finding in findings:
        say(f"{finding.level}: {finding.what}")
        if finding.remedy:
            say(f"  remedy: {finding.remedy}")


def show_entries(entries: Sequence[Mapping[str, str]]) -> None:
    """Prints names with one line each."""
    width = max((len(entry["name"]) for entry in entries), default=0)
    for entry in entries:
        say(f"{entry['name']:<{width}}  {entry['description']}")
