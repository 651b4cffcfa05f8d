"""The searches of the arms and the trainings of their picks."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field

from autopeft.core.config import PeftConfig
from autopeft.search.surrogate import one_thread
from benchmarks.rows import Row
from benchmarks.value.bench import Bench, Trial, bench
from benchmarks.value.mixes import autopeft, autopeft_paper, random
from benchmarks.value.picks import picks
from benchmarks.value.single import baselines, tuned_adapter, tuned_lora

REFERENCE = "tuned_lora"
"""The arm that the others are compared with."""

LONGER = "tuned_lora_longer"
"""The picks of the reference, trained twice as far as they were chosen by."""

SINGLE = (REFERENCE, "tuned_adapter", "baselines")
"""Arms of one method."""

ARMS: Mapping[str, Callable[[Bench, int, int], list[Trial]]] = {
    "autopeft": autopeft,
    REFERENCE: tuned_lora,
    "tuned_adapter": tuned_adapter,
    "random": random,
    "autopeft_paper": autopeft_paper,
    "baselines": baselines,
}
"""The trials of an arm, by bench, full trainings and seed."""

FRESH = 1000
"""The first seed of retrainings; searches use the number of their repetition."""


@dataclass(frozen=True)
class Search:
    """One arm on one data set.

    Attributes:
        data: a name of `TEXTS`, or what `own` returned.
        repetition: seed of the splits and of the search.
        n_train: training examples.
        arm: a name of `ARMS`.
        budget: full trainings.
    """

    data: str
    repetition: int
    n_train: int
    arm: str
    budget: int


@dataclass(frozen=True)
class Retraining:
    """One training of a pick with a seed that no search has used; arms share it.

    Attributes:
        config: its document, as JSON with sorted keys.
        epochs: of the training.
    """

    data: str
    repetition: int
    n_train: int
    config: str = field(repr=False)
    epochs: float
    seed: int


def search(order: Search) -> Row:
    """The trials of an arm."""
    with one_thread():
        here = bench(order.data, order.repetition, order.n_train)
        trials = ARMS[order.arm](here, order.budget, order.repetition)
        return {"trials": [asdict(trial) for trial in trials]}


def retrain(order: Retraining) -> Row:
    """The accuracy of a pick on the test split."""
    with one_thread():
        here = bench(order.data, order.repetition, order.n_train)
        config = PeftConfig.from_dict(json.loads(order.config))
        return {"test_accuracy": here.tested(config, order.epochs, order.seed)}


def training(trial: Row) -> tuple[str, float]:
    """What an order says of a trial: its configuration and its length."""
    return json.dumps(trial["config"], sort_keys=True), trial["length"]


def picks_by_arm(searches: Sequence[Row]) -> dict[str, Mapping[str, Row]]:
    """The picks of all arms on one data set in one repetition, the reference among them."""
    trials = {row["arm"]: row["trials"] for row in searches}
    most = picks(trials[REFERENCE], 0)["best"]["params"]
    by_arm = {arm: picks(of_arm, most) for arm, of_arm in trials.items()}
    reference = by_arm[REFERENCE].items()
    longer = {name: {**trial, "length": 2 * trial["length"]} for name, trial in reference}
    return {**by_arm, LONGER: longer}


def retrainings(searches: Sequence[Row], seeds: int) -> list[Retraining]:
    """What is trained again after the searches on one data set in one repetition."""
    first = searches[0]
    place = first["data"], first["repetition"], first["n_train"]
    chosen = [trial for arm in picks_by_arm(searches).values() for trial in arm.values()]
    trainings = dict.fromkeys(map(training, chosen))
    return [Retraining(*place, *each, FRESH + n) for n in range(seeds) for each in trainings]
