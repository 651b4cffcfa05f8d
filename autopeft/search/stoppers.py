"""The stoppers by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from autopeft.core.errors import StudyError, unknown
from autopeft.objective.objective import Objective
from autopeft.search.halving import AsynchronousHalving, SynchronousHalving
from autopeft.search.model_based import ModelBased
from autopeft.search.stopping import Never, Stopper


@dataclass(frozen=True)
class Fidelity:
    """What a stopper is made from; see `Halving` and `ModelBased`."""

    rungs: tuple[float, ...]
    reduction: float = 3.0
    objectives: tuple[Objective, ...] = ()
    signal: str = "auto"
    n_validation: int | None = None
    brackets: int = 1


STOPPERS: Mapping[str, Callable[[Fidelity], Stopper]] = {
    "halving": lambda f: AsynchronousHalving(**vars(f)),
    "synchronous_halving": lambda f: SynchronousHalving(**vars(f)),
    "model": lambda f: ModelBased(f.rungs, f.objectives),
    "none": lambda f: Never(),
}


def make_stopper(name: str, fidelity: Fidelity) -> Stopper:
    """The stopper of a name.

    Raises:
        StudyError: no such name, or a fidelity that the stopper refuses.
    """
    if name not in STOPPERS:
        raise StudyError(unknown("stopper", name, STOPPERS), "fidelity.stopper")
    return STOPPERS[name](fidelity)
