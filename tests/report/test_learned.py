from __future__ import annotations

import numpy as np
import pytest

from autopeft.core.config import PeftConfig
from autopeft.report.learned import Learned, learned
from autopeft.search.effects import Effect
from autopeft.study.trial import TrialRecord
from tests.report.trials import ACCURACY, OBJECTIVES, PARAMS, STUDY, adapter, complete, lora


def many(n: int = 40) -> list[TrialRecord]:
    """Adapters in the upper half are worth four points."""
    rng = np.random.default_rng(0)
    trials = []
    for number in range(n):
        upper, rank = rng.random() < 0.5, int(rng.choice([4, 16]))
        placements = (lora(rank, range(6)), *((adapter(32, [3, 4, 5]),) if upper else ()))
        accuracy = 0.8 + 0.04 * upper + rng.normal(0, 0.004)
        trials.append(complete(number, accuracy, 1000, placements=placements))
    return trials


def test_what_is_sure_is_said_with_what_adds_nothing() -> None:
    found = learned(many(), OBJECTIVES)
    assert found is not None
    first, *_ = found.rows
    assert first[0] == "adapter in the upper half"
    assert first[1] == pytest.approx(4.0, abs=0.7)
    assert found.sentence.startswith("adapter in the upper half gains 3.")
    assert found.sentence.endswith(" points; lora r 16 rather than 4 adds nothing")


def test_other_metrics_have_their_own_unit() -> None:
    effects = (Effect("lora in the upper half", 0.3, 0.1),)
    assert Learned(ACCURACY, 1, effects).sentence == (
        "lora in the upper half costs 0.3 ± 0.2 of accuracy"
    )


def test_few_trials_say_nothing() -> None:
    found = learned(STUDY, OBJECTIVES)
    assert found is not None
    assert (found.effects, found.sentence) == ((), "")
    assert learned(STUDY, (PARAMS,)) is None
    unplaced = [complete(i, 0.8 + i / 1000, 10, placements=()) for i in range(20)]
    assert unplaced[0].config == PeftConfig.of([], {"learning_rate": 1e-3})
    assert learned(unplaced, OBJECTIVES).effects == ()
