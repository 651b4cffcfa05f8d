"""What earlier studies have found, for a new one to begin with."""

from __future__ import annotations

import math
from collections.abc import Sequence

from autopeft.api.outcome import open_study
from autopeft.core.catalog import Reference
from autopeft.core.errors import StudyError, inside
from autopeft.objective.objective import Objective
from autopeft.search.history import Observation


def observations(
    studies: Sequence[Reference] | None, objectives: Sequence[Objective]
) -> list[list[Observation]] | None:
    """The complete trials of each study, with the losses of `objectives`, NaN where it has none.

    None where no studies are named.

    Raises:
        StudyError: a study that has not been run, or measures none of the objectives.
    """
    if studies is None:
        return None
    by_study = []
    with inside("search.warm_start"):
        for study in studies:
            outcome = open_study(study)
            measured = [o.name for o in objectives if not o.known]
            theirs = [o.name for o in outcome.objectives]
            if not set(measured) & set(theirs):
                measures = f"{outcome.spec.name!r} measures {', '.join(theirs)}"
                raise StudyError(f"{measures}, not {' or '.join(measured)}")
            trials = [trial for trial in outcome.trials if trial.is_own]
            complete = [trial for trial in trials if trial.state == "complete"]
            rows = [[o.loss(t.values.get(o.name, math.nan)) for o in objectives] for t in complete]
            pairs = zip(complete, rows, strict=True)
            by_study.append([Observation(trial.config, tuple(row)) for trial, row in pairs])
    return by_study
