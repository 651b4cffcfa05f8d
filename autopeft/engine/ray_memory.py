"""Which worker Ray has killed for memory, by which all of Tune ends."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from ray import tune
from ray.exceptions import OutOfMemoryError

_KILLED = re.compile(r"Selected to kill: \(Actor\((\w+)\).*?memory used=([\d.]+)GB")
_TOTAL = re.compile(r"of (\d+)B limit")


class Actors(tune.Callback):
    """Notes which actor trains for which worker of the dispatcher, a trial of Tune."""

    def __init__(self) -> None:
        self.workers: dict[str, str] = {}

    def on_trial_start(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        actor = trial.temporary_state.ray_actor
        if actor is not None:
            self.workers[actor._actor_id.hex()] = trial.trial_id


@dataclass(frozen=True)
class Kill:
    """A worker that was killed because its node had too little memory.

    Attributes:
        worker: that took most of those that were killed; empty where Ray does not tell.
        total: bytes of the node.
    """

    worker: str = ""
    total: int = 0

    @classmethod
    def told_by(cls, error: RuntimeError, actors: Actors) -> Kill | None:
        """What an error tells that has ended Tune; None where it is another."""
        if not isinstance(error.__cause__, OutOfMemoryError):
            return None
        text = str(error.__cause__)
        used = {actor: float(gigabytes) for actor, gigabytes in _KILLED.findall(text)}
        total = _TOTAL.search(text)
        greediest = max(used, key=lambda actor: used[actor], default="")
        return cls(actors.workers.get(greediest, ""), int(total[1]) if total else 0)
