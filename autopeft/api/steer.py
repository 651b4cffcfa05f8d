"""What people may ask of a study while it runs: stop this trial, try that configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autopeft.api.configurations import configuration
from autopeft.api.deploy import deployable
from autopeft.api.outcome import open_study
from autopeft.api.run import prepare
from autopeft.core.catalog import Reference
from autopeft.core.errors import StudyError, inside, unknown
from autopeft.study.queue import Queue
from autopeft.study.record import find_record, reachable
from autopeft.study.repeats import UNDER_WAY
from autopeft.study.spec import StudySpec, load_spec
from autopeft.study.trial import TrialRecord
from autopeft.study.wishes import WISHES, Wishes, wish


def steer(
    study: Reference | StudySpec,
    trial: int,
    wanted: str,
    *,
    changes: Mapping[str, Any] | None = None,
) -> None:
    """Asks whoever runs a study to stop, pause or resume a trial, which is done at its next rung.

    A run that is started later does it, too. No run waits for a trial that pauses so: it ends with
    the others, and a later one goes on with it once it is resumed.

    Args:
        study: name of the catalog, path, mapping, or a loaded one.
        trial: number of a trial that has not ended.
        wanted: `stop`, `pause` or `resume`.
        changes: values by dotted key that replace those of the file.

    Raises:
        StudyError: another wish, no such trial, or one that has ended, does not pause, or is in
            training without a rung before its end.
    """
    if wanted not in WISHES:
        raise StudyError(unknown("wish", wanted, WISHES))
    spec = study if isinstance(study, StudySpec) else load_spec(study, changes)
    outcome = open_study(spec)
    spec, trials = outcome.spec, outcome.trials
    if not 0 <= trial < len(trials):
        raise StudyError(f"there is no trial {trial}, there are {len(trials)} trials")
    asked, (first, last) = trials[trial], spec.fidelity.bounds
    if asked.state not in UNDER_WAY:
        raise StudyError(f"trial {trial} is {asked.state}")
    has_one_rung = asked.repeat_of is not None or (asked.proposer is None and first == last)
    if asked.state == "running" and wanted != "resume" and has_one_rung:
        reason = "has no rung before its end, as with fidelity: {epochs: [first, last]}"
        raise StudyError(f"trial {trial} {reason}")
    with inside(spec.place), reachable():
        record = find_record(spec.storage_url, spec.name)
        if wanted == "resume" and Wishes(record).of(trial) != "pause":
            raise StudyError(f"nobody lets trial {trial} pause")
        wish(record, trial, wanted)


def propose(
    study: Reference | StudySpec,
    config: Reference,
    *,
    changes: Mapping[str, Any] | None = None,
) -> int:
    """Queues a configuration for a study, beside its `n_trials`; the next free worker trains it.

    Args:
        study: name of the catalog, path, mapping, or a loaded one; it has been run.
        config: a document of the DSL without choices, of the catalog, a file or a mapping.
        changes: values by dotted key that replace those of the file.

    Returns:
        The number of its trial.

    Raises:
        AutoPeftError: the configuration means nothing, does not fit the model, exceeds a limit of
            the study, is one that the study has, or its target cannot load it.
    """
    spec = study if isinstance(study, StudySpec) else load_spec(study, changes)
    outcome = open_study(spec)
    prepared = prepare(outcome.spec)
    wanted = configuration(config, prepared.setting.backbone)
    if not deployable(spec.space, spec.deploy, prepared.task.head).takes(wanted):
        raise StudyError(f"{spec.deploy} cannot load it", "deploy")
    for name, limit in prepared.limits.items():
        value = prepared.known[name].value(wanted)
        if not value <= limit:
            raise StudyError(f"is {value:,.0f}, the limit is {limit:,.0f}", f"limits.{name}")
    twin = _twin(outcome.trials, wanted.key)
    if twin is not None:
        raise StudyError(f"trial {twin} is this configuration")
    with inside(spec.place), reachable():
        return Queue(find_record(spec.storage_url, spec.name)).wanted(wanted)


def _twin(trials: tuple[TrialRecord, ...], key: str) -> int | None:
    """The trial that has a configuration already."""
    own = (t for t in trials if t.is_own and t.state != "rejected")
    return next((trial.number for trial in own if trial.config.key == key), None)
