"""What an evaluator tells of the configurations that it trains."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from autopeft.core.config import PeftConfig
from autopeft.core.errors import DivergenceError
from autopeft.core.settings import TrainSettings

Fault = Literal["configuration", "divergence", "machine", "worker"]
"""Why a training fails: the configuration, also where it diverges; the machine, so that another go
may succeed; or the worker, which can train nothing, as where it finds no data."""

TEST = "test_"
"""What the names of metrics of the test split begin with."""

TRAINED = "trained_elements"
"""The metric that says how many elements are trained, those of the head included."""

MEASURED = "measured_memory"
"""The metric that says how many bytes of a GPU were taken at most, where nobody else trained."""


@dataclass(frozen=True)
class Report:
    """One line of a learning curve: what is known of a configuration after some training.

    Attributes:
        step: optimizer steps taken.
        fidelity: epochs trained, the unit of rungs.
        metrics: by name, such as `accuracy`, `validation_loss`, `train_loss`; times in seconds.
        member: which of the configurations that are trained together; in a study, its trial number.
    """

    step: int
    fidelity: float
    metrics: Mapping[str, float]
    member: int = 0

    @property
    def trains_nothing(self) -> bool:
        """Whether the configuration leaves the model as it comes, the same with every seed."""
        return self.metrics.get(TRAINED) == 0

    @property
    def test(self) -> dict[str, float]:
        """The metrics of the test split by name; none where it was not scored."""
        scored = ((name, value) for name, value in self.metrics.items() if name.startswith(TEST))
        return {name.removeprefix(TEST): value for name, value in scored}


@dataclass(frozen=True)
class Shortage:
    """Memory that was not enough.

    Attributes:
        device: whose it is, such as `cpu` or `NVIDIA H200`.
        total: bytes that the device has in all.
        batch_size: sequences that were computed together.
    """

    device: str
    total: int
    batch_size: int

    @classmethod
    def of(cls, config: PeftConfig, device: str, total: int) -> Shortage:
        """What a configuration had too little of."""
        return cls(device, total, TrainSettings(**dict(config.train)).batch_size)


@dataclass(frozen=True)
class Failure:
    """The end of the training of one configuration that cannot go on.

    Attributes:
        member: as in `Report`.
        error: kind and text.
        where: the machine, to be added to the text; not part of what tells errors apart.
        fault: what is to blame; a machine or a worker that is gives the configuration another go.
        shortage: of what, where it does not fit.
    """

    member: int
    error: str
    where: str = ""
    fault: Fault = "configuration"
    shortage: Shortage | None = None

    @classmethod
    def of(cls, member: int, error: Exception) -> Failure:
        """What an error is to one member; what the system refuses is the machine's failure."""
        return cls(member, described(error), fault=fault_of(error))

    @classmethod
    def of_all(
        cls, members: Iterable[int], error: str, fault: Fault = "configuration"
    ) -> list[Failure]:
        """One error as the failure of all members; it tells each who else was there.

        Any one of them may be the cause, so the texts differ: they are not failures of one kind.
        """
        numbers = sorted(members)
        others = {n: ", ".join(str(m) for m in numbers if m != n) for n in numbers}
        texts = {n: f"{error} (beside {others[n]})" if others[n] else error for n in numbers}
        return [cls(n, texts[n], fault=fault) for n in numbers]


@dataclass(frozen=True)
class Proposals:
    """What a one-shot search proposes; its member has ended.

    Attributes:
        member: as in `Report`.
        points: of the space, by name of the decision, the most promising first.
        epochs: passes over the training split that it took in all.
    """

    member: int
    points: tuple[Mapping[str, Any], ...]
    epochs: float = 0.0


Notice = Report | Failure | Proposals
"""What an evaluator tells."""


def described(error: BaseException) -> str:
    """An error as the record keeps it: its kind and what it says."""
    return f"{type(error).__name__}: {error}"


def fault_of(error: Exception) -> Fault:
    """What is to blame for an error of a training."""
    if isinstance(error, DivergenceError):
        return "divergence"
    return "machine" if isinstance(error, OSError) else "configuration"
