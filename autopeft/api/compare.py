"""One study beside another."""

from __future__ import annotations

from autopeft.api.outcome import Outcome, open_study
from autopeft.core.catalog import Reference
from autopeft.report.versus import Told, Versus, versus
from autopeft.study.spec import StudySpec


def compare(
    first: Reference | StudySpec | Outcome, second: Reference | StudySpec | Outcome
) -> Versus:
    """Two studies of the same objectives on one front.

    Args:
        first: the study, or what its record says.
        second: likewise.

    Raises:
        StudyError: there is no such study, it has not been run, or they have other objectives.
    """
    one, other = (s if isinstance(s, Outcome) else open_study(s) for s in (first, second))
    begun = {**one.identity, **other.identity}
    differing = [key for key in begun if one.identity.get(key) != other.identity.get(key)]
    return versus(_told(one), _told(other), differing)


def _told(outcome: Outcome) -> Told:
    return outcome.spec.name, outcome.trials, outcome.objectives
