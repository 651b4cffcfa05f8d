"""More fresh trainings of one trial."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from autopeft.api.outcome import Outcome, open_study
from autopeft.api.run import Prepared, prepare
from autopeft.core.catalog import Reference
from autopeft.core.errors import StudyError
from autopeft.engine.engine import Watch
from autopeft.study.record import find_record, reachable
from autopeft.study.repeats import UNDER_WAY
from autopeft.study.spec import StudySpec, load_spec
from autopeft.study.wishes import Wishes


def prepare_rerun(
    study: Reference | StudySpec,
    trial: int,
    seeds: int,
    changes: Mapping[str, Any] | None = None,
) -> Prepared:
    """Checks that a trial can be trained again, until it has been with so many fresh seeds.

    Args:
        study: name of the catalog, path, mapping, or a loaded one.
        trial: number of a complete trial.
        seeds: fresh trainings of it in all, at least one.
        changes: values by dotted key that replace those of the file.

    Raises:
        StudyError: a trial is under way, or there is no such trial.
        ExportError: that trial is not complete.
    """
    spec = study if isinstance(study, StudySpec) else load_spec(study, changes)
    outcome = open_study(spec)
    if seeds < 1:
        raise StudyError(f"must be positive, got {seeds}", "seeds")
    chosen = outcome.trial(trial)
    if chosen.repeat_of is not None:
        raise StudyError(f"trial {trial} is trial {chosen.repeat_of} with a fresh seed", "trial")
    with reachable():
        wishes = Wishes(find_record(spec.storage_url, spec.name))
    for other in outcome.trials:
        if other.state in UNDER_WAY:
            reason = f"trial {other.number} is {other.state}; run the study to its end first"
            if wishes.of(other.number) == "pause":
                reason = (
                    f"trial {other.number} pauses by hand; resume or stop it, and run the study"
                )
            raise StudyError(reason, spec.place)
    return replace(prepare(spec), rerun=(trial, seeds))


def rerun(
    study: Reference | StudySpec,
    trial: int,
    *,
    seeds: int = 5,
    changes: Mapping[str, Any] | None = None,
    watch: Watch | None = None,
) -> Outcome:
    """Trains a trial again until it has been with so many fresh seeds, and scores it on the test.

    It is trained as far as the finalists were, or as it was where there are none; from then on its
    values are means over its fresh seeds, and those who have none are not told of.

    Args:
        study: name of the catalog, path, mapping, or a loaded one.
        trial: number of a complete trial.
        seeds: fresh trainings of it in all.
        changes: values by dotted key that replace those of the file.
        watch: called after every change, with the study.

    Raises:
        AutoPeftError: see `prepare_rerun`.
    """
    return prepare_rerun(study, trial, seeds, changes).run(watch)
