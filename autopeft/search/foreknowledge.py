"""What a search may know before its first trial."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from autopeft.search.history import Observation
from autopeft.search.sensitivity import Sensitivity


@dataclass(frozen=True)
class Foreknowledge:
    """What is known before the first trial.

    Attributes:
        studies: observations of earlier studies, losses in the order of the objectives; None for
            the trials that come with autopeft.
        sensitivity: gradients at the start of a training, where they have been measured.
    """

    studies: Sequence[Sequence[Observation]] | None = None
    sensitivity: Sensitivity | None = None
