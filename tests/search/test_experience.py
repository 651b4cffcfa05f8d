from __future__ import annotations

import json

import numpy as np
import pytest

from autopeft.core.config import PeftConfig, Placement
from autopeft.objective.objective import Objective, load_objectives
from autopeft.objective.quantity import Known
from autopeft.search.bayes import BayesSampler
from autopeft.search.experience import experience
from autopeft.search.features import Encoder
from autopeft.search.history import History
from benchmarks.search.measure import bound_space
from benchmarks.value.experience import ROWS, SETS, configs
from tests.contracts import sampler as kit

OBJECTIVES = load_objectives("accuracy-params")


def test_it_holds_the_rows_that_were_trained() -> None:
    lines = ROWS.read_text(encoding="utf-8").splitlines()
    rows = sorted(map(json.loads, lines), key=lambda row: row["number"])
    studies = experience(OBJECTIVES, 6)
    assert len(studies) == len(SETS)
    drawn = {config.key for config in configs()}
    for name, study in zip(SETS, studies, strict=True):
        told = [row["accuracy"] for row in rows if row["data"] == name]
        assert [-o.losses[0] for o in study] == pytest.approx(told)
        assert all(np.isnan(o.losses[1]) for o in study)
        assert {o.config.key for o in study} == drawn


@pytest.mark.parametrize("n_layers", [6, 12, 24])
def test_configurations_keep_their_depths(n_layers: int) -> None:
    (own, _), (stretched, _) = experience(OBJECTIVES, 6), experience(OBJECTIVES, n_layers)
    for a, b in zip(own, stretched, strict=True):
        assert len(a.config.placements) == len(b.config.placements)
        for p, q in zip(a.config.placements, b.config.placements, strict=True):
            assert np.mean(p.layers) / 6 == pytest.approx(np.mean(q.layers) / n_layers, abs=0.1)
            assert len(p.layers) / 6 == len(q.layers) / n_layers


def test_a_first_search_knows_it_and_can_do_without() -> None:
    space, known = bound_space(), {"trainable_params": Known(kit.cost)}
    empty = History((), (), frozenset())

    def first(earlier: tuple[()] | None) -> list[str]:
        sampler = BayesSampler(space, OBJECTIVES, known, earlier=earlier)
        rng = np.random.default_rng(0)
        return [sampler.choose(empty, rng, number).config.key for number in range(4)]

    assert first(None) != first(())


def test_it_says_nothing_of_other_objectives() -> None:
    objectives = [Objective("seconds", "minimize"), OBJECTIVES[1]]
    assert all(np.isnan(o.losses).all() for study in experience(objectives, 6) for o in study)


def test_what_it_has_not_seen_is_unknown() -> None:
    (study, _) = experience(OBJECTIVES, 6)
    encoder = Encoder([o.config for o in study], 6)
    assert all(encoder.knows(o.config) for o in study)
    assert not encoder.knows(
        PeftConfig.of([Placement.of("lora", [0], {"targets": ("k",), "r": 4})])
    )
