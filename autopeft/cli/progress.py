"""The display while a study runs."""

from __future__ import annotations

import time

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from autopeft.api.run import Prepared
from autopeft.cli.remaining import ended, most_repeats, planned, seconds_left
from autopeft.cli.show import best_of, states_of
from autopeft.core import host
from autopeft.core.quantity import duration
from autopeft.report.learned import learned
from autopeft.report.summary import summary, words
from autopeft.report.value import shown, title, valued
from autopeft.study.spec import FidelitySection, Search
from autopeft.study.study import Study
from autopeft.study.trial import TrialRecord

MOST_SHOWN = 4
"""Trials in training that are told of."""


class Progress:
    """Shows trials done, the best per objective and the time left on the error stream.

    A terminal gets a display that changes in place, anything else a line for each ended trial.
    """

    def __init__(self, prepared: Prepared, quiet: bool = False) -> None:
        self.prepared, self.quiet = prepared, quiet
        self.started = time.monotonic()
        self.ended: set[int] | None = None
        self._trials: tuple[TrialRecord, ...] = ()
        self._told = 0, ""
        self.console = Console(stderr=True)
        self.live: Live | None = None

    def __enter__(self) -> Progress:
        if self.quiet:
            return self
        if self.prepared.rerun is None and most_repeats(self._search, self._fidelity):
            self.console.print(self._announcement(), highlight=False, soft_wrap=True)
        if self.console.is_terminal:
            self.live = Live(
                console=self.console,
                get_renderable=lambda: self._table(self._trials),
                refresh_per_second=1,
                transient=True,
            )
            self.live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self.live is not None:
            self.live.stop()

    def watch(self, study: Study) -> None:
        """Brings the display up to date."""
        if self.quiet:
            return
        trials = study.trials()
        if self.live is None:
            self._lines(trials)
        else:
            self._learn(trials)
            self._trials = trials

    def _announcement(self) -> str:
        """What comes on top of the trials of the search."""
        search, fidelity = self._search, self._fidelity
        lengths = " or ".join(f"{length:g}" for length in fidelity.lengths)
        finalists = "1 finalist" if search.n_finalists == 1 else f"{search.n_finalists} finalists"
        ends = f"{finalists} + {len(search.baselines)} baselines"
        return (
            f"{search.n_trials} trials of {fidelity.bounds[1]:g} epochs, then at most "
            f"{most_repeats(search, fidelity)} trainings of {lengths}: "
            f"({ends}) x {search.n_seeds} fresh seeds, scored on the test split"
        )

    def _seconds_left(self, trials: tuple[TrialRecord, ...]) -> float | None:
        return seconds_left(trials, self._search, self._fidelity, time.time())

    @property
    def _fidelity(self) -> FidelitySection:
        return self.prepared.spec.fidelity

    def _lines(self, trials: tuple[TrialRecord, ...]) -> None:
        now = {t.number for t in trials if t.state in {"complete", "stopped", "failed"}}
        fresh = now - (now if self.ended is None else self.ended)
        self.ended = now
        for number in sorted(fresh):
            self.console.print(self._line(trials, trials[number]), highlight=False, soft_wrap=True)

    def _line(self, trials: tuple[TrialRecord, ...], trial: TrialRecord) -> Text:
        done, n_trials = ended(trials), planned(trials, self._search, self._fidelity)
        values = " ".join(
            f"{o.name} {shown(o, trial.values[o.name])}"
            for o in self.prepared.objectives
            if o.name in trial.values
        )
        left = self._seconds_left(trials)
        line = "  ".join(
            part
            for part in (
                f"[{done}/{n_trials}] trial {trial.number} {trial.state}",
                values,
                trial.error,
                words(trial),
                f"(about {duration(left)} left)" if left and left >= 1 else "",
            )
            if part
        )
        return Text(line)

    def _table(self, trials: tuple[TrialRecord, ...]) -> Table:
        states = states_of(trials)
        table = Table.grid(padding=(0, 2))
        counts = ", ".join(f"{n} {state}" for state, n in states.items() if n)
        table.add_row(
            f"[bold]{escape(self.prepared.spec.name)}[/]",
            f"{ended(trials)}/{planned(trials, self._search, self._fidelity)}",
            counts,
        )
        for objective in self.prepared.objectives:
            best = best_of(trials, objective)
            if best is not None:
                value = valued(objective, best)
                table.add_row(f"best {title(objective)}", value, escape(summary(best.config)))
        for trial in [t for t in trials if t.state == "running"][:MOST_SHOWN]:
            rung = f"epoch {trial.epochs:g}" if trial.epochs else "begins"
            table.add_row(f"trial {trial.number}", rung, escape(words(trial)))
        if self._told[1]:
            table.add_row("learned", "", escape(self._told[1]))
        table.add_row("machine", "", host.use())
        left = self._seconds_left(trials)
        spent = duration(time.monotonic() - self.started)
        table.add_row("time", spent, f"about {duration(left)} left" if left and left >= 1 else "")
        return table

    def _learn(self, trials: tuple[TrialRecord, ...]) -> None:
        """Works out what the trials that have ended tell, when another has."""
        n_ended = ended(trials)
        if n_ended != self._told[0]:
            found = learned(trials, self.prepared.objectives)
            self._told = n_ended, found.sentence if found else ""

    @property
    def _search(self) -> Search:
        return self.prepared.spec.search
