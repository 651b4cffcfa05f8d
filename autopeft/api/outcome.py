"""A study as its record tells it: the front, pictures, a page, one trial."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna

from autopeft.core.catalog import Reference
from autopeft.core.errors import ExportError, StudyError, inside, redacted
from autopeft.core.extent import EXTENT, cut_told
from autopeft.objective.objective import Objective, load_objectives
from autopeft.report.baseline import Comparison, compare
from autopeft.report.choice import Choice, choose
from autopeft.report.frame import frame
from autopeft.report.front import Front
from autopeft.report.page import write_report
from autopeft.report.plot import plot
from autopeft.report.seeds import folded
from autopeft.study.record import find_record, reachable, read_trials, record_id
from autopeft.study.spec import SPEC, StudySpec, load_spec
from autopeft.study.trial import TrialRecord

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True)
class Outcome:
    """What the record of a study says.

    Attributes:
        spec: the study file, as it was last run.
        objectives: in its order.
        trials: every trial, in order of number.
        identity: what the study was begun with: model, task, data and their classes.
        extent: examples and tokens by split, see `Cut.extent`; none in older records.
        record: its unique name.
        ended: why the search has ended before its last trial, or None.
        limits: that its trials keep beside those of the study, as they were given.
    """

    spec: StudySpec
    objectives: tuple[Objective, ...]
    trials: tuple[TrialRecord, ...]
    identity: Mapping[str, Any] = field(default_factory=dict)
    extent: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    record: str = ""
    ended: str | None = None
    limits: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def front(self) -> Front:
        """The complete trials that no other dominates, of means where there are fresh seeds."""
        return Front.of(self.trials, self.objectives)

    @cached_property
    def hypervolume(self) -> float:
        """Of the front against the reference points of the objectives, on their scales."""
        return self.front.hypervolume

    @cached_property
    def comparisons(self) -> tuple[Comparison, ...]:
        """The search against each baseline, by test values of fresh seeds; none without those."""
        return compare(self.trials, self.objectives)

    @property
    def facts(self) -> Mapping[str, object]:
        """What the study is, in words."""
        spec = self.spec
        return {
            "model": spec.model,
            **({"code of the model": "runs"} if spec.trust_remote_code else {}),
            "data": spec.task.get("data", ""),
            **_examples(self.extent),
            "search space": spec.space if isinstance(spec.space, str) else "inline",
            "sampler": ", ".join(spec.search.proposing),
            "epochs": _epochs(spec),
            "seed": spec.search.seed,
            "storage": redacted(spec.storage_url),
        }

    def against_baselines(self, number: int) -> tuple[Comparison, ...]:
        """A trial against each baseline, by test values of fresh seeds; none without those."""
        return compare(self.trials, self.objectives, number)

    def lacking(self, number: int, seeds: int) -> str:
        """What a trial lacks of so many fresh trainings, as a sentence; empty for nothing."""
        mean = next(trial for trial in folded(self.trials) if trial.number == number)
        if mean.trains_nothing or mean.n_seeds >= seeds:
            return ""
        errors = [t.error for t in self.trials if t.repeat_of == number and t.state == "failed"]
        why = f": {errors[-1]}" if errors else ""
        return f"trial {number} has {mean.n_seeds} of {seeds} fresh trainings{why}"

    def frame(self) -> DataFrame:
        """Every trial as a row of a data frame of pandas."""
        return frame(self.trials, self.objectives)

    def plot(self, path: str | Path) -> Path:
        """Draws the front into a `.png` or `.html` file.

        Raises:
            StudyError: another kind of file, or a folder that is not there.
        """
        return plot(self.trials, self.objectives, path)

    def report(self, folder: str | Path, reference: Sequence[str] = ()) -> Path:
        """Writes one self-contained page into a folder and gives its path.

        Args:
            folder: that is made if need be.
            reference: arguments by which commands find the study; its file by default.

        Raises:
            StudyError: the folder is a file.
        """
        if Path(folder).exists() and not Path(folder).is_dir():
            raise StudyError("exists and is no folder", str(folder))
        told = self.spec.name, self.facts, self.trials, self.objectives
        return write_report(*told, folder, reference or (self.spec.place,))

    def choose(self, rule: str = "knee", within: str | float | None = None) -> Choice:
        """One trial of the front by `knee`, `best` or `cheapest`, with the reason.

        Raises:
            StudyError: an empty front, or an unknown rule.
        """
        choice = choose(self.front, rule, within)
        told = " and ".join(f"{name} up to {most}" for name, most in self.limits.items())
        return replace(choice, reason=f"{choice.reason}, of those with {told}") if told else choice

    def pick(self, rule: str = "knee", within: str | float | None = None) -> TrialRecord:
        """The trial that `choose` chooses."""
        return self.choose(rule, within).trial

    def trial(self, number: int) -> TrialRecord:
        """A complete trial.

        Raises:
            ExportError: there is none of this number, or it was not trained to the end.
        """
        trial = {trial.number: trial for trial in self.trials}.get(number)
        if trial is None:
            complete = [t.number for t in self.trials if t.state == "complete"]
            raise ExportError(f"there is no trial {number}; complete are {complete}", "trial")
        if trial.state != "complete":
            why = f" ({trial.error})" if trial.error else ""
            raise ExportError(f"trial {number} is {trial.state}{why}; it has no tensors", "trial")
        return trial


def _examples(extent: Mapping[str, Mapping[str, int]]) -> dict[str, str]:
    """How many examples there are of each split, and what is cut of those of training."""
    sizes = ", ".join(f"{of['examples']:,} {split}" for split, of in extent.items())
    cut = cut_told(extent.get("train", {}))
    return {name: told for name, told in {"examples": sizes, "cut": cut}.items() if told}


def _epochs(spec: StudySpec) -> str:
    """How far trials go, and finalists where there are any."""
    last = f"{spec.fidelity.bounds[1]:g}"
    again = " or ".join(f"{length:g}" for length in spec.fidelity.lengths)
    return f"{last}, with fresh seeds {again}" if spec.search.n_finalists else last


def open_study(
    study: Reference | StudySpec, *, changes: Mapping[str, Any] | None = None
) -> Outcome:
    """What the record of a study says, while it runs or after.

    Args:
        study: name of the catalog, path or mapping.
        changes: values by dotted key that replace those of the file.

    Raises:
        StudyError: there is no such study, or it has not been run.
    """
    spec = study if isinstance(study, StudySpec) else load_spec(study, changes)
    with inside(spec.place):
        return outcome_of(spec, find_record(spec.storage_url, spec.name))


def outcome_of(spec: StudySpec, record: optuna.Study) -> Outcome:
    """What a record says, whatever the study file has come to say.

    Raises:
        StudyError: the record cannot be read.
    """
    with reachable():
        attrs = record.user_attrs
    spec = spec.as_recorded(attrs.get(SPEC, {}))
    with inside("objectives"):
        objectives = load_objectives(spec.objectives)
    return Outcome(
        spec,
        objectives,
        trials=read_trials(record, [o.name for o in objectives]),
        identity=attrs.get("identity", {}),
        extent=attrs.get(EXTENT, {}),
        record=record_id(record),
        ended=attrs.get("ended"),
    )


def pareto(study: Reference | StudySpec | Outcome) -> Front:
    """The complete trials of a study that no other dominates.

    Args:
        study: the study, or what its record says.

    Raises:
        StudyError: there is no such study, or it has not been run.
    """
    return (study if isinstance(study, Outcome) else open_study(study)).front
