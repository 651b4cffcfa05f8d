from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from autopeft.core.config import PeftConfig, Placement
from autopeft.search.candidates import (
    Draws,
    candidates,
    everything,
    spread,
    thrifty,
    unseen,
    van_der_corput,
)
from autopeft.search.features import features
from autopeft.space.space import SearchSpace
from tests.contracts import sampler as kit

SPACE = kit.problem().space


def test_candidates_are_new_distinct_and_inside() -> None:
    rng = np.random.default_rng(0)
    elites = [SPACE.sample(rng) for _ in range(3)]
    foreign = PeftConfig.of([Placement.of("prefix", [0], {"length": 3})])
    seen = {config.key for config in elites}
    found = candidates(Draws(SPACE, rng), [*elites, foreign], seen)
    keys = [config.key for config in found]
    assert len(keys) == len(set(keys)) > 100
    assert not seen & set(keys)
    assert all(config in SPACE for config in found)


def test_neighbours_of_the_elites_are_among_them() -> None:
    """Nearer to the elite than random ones are."""
    elite = SPACE.sample(np.random.default_rng(3))

    def nearest(elites: list[PeftConfig]) -> float:
        found = candidates(Draws(SPACE, np.random.default_rng(0)), elites, {elite.key})
        rows = features([elite, *found], SPACE.n_layers)
        return float(np.sort(np.linalg.norm(rows[1:] - rows[0], axis=1))[:10].mean())

    assert nearest([elite]) < 0.8 * nearest([])


def test_the_walk_reaches_the_cheap_end() -> None:
    rng = np.random.default_rng(0)
    drawn = min(kit.cost(SPACE.sample(rng)) for _ in range(30))
    found = thrifty(Draws(SPACE, np.random.default_rng(0)), kit.cost, set())
    assert min(kit.cost(config) for config in found) < drawn
    assert all(config in SPACE for config in found)


def test_a_small_space_is_taken_as_a_whole() -> None:
    lora = {"method": "lora", "r": {"choice": [0, 4, 16]}}
    document = {"layers": {"groups": 3}, "place": [lora]}
    found = everything(SearchSpace.load(document).on(6))
    assert found is not None
    assert len({config.key for config in found}) == len(found) == 27
    assert everything(SearchSpace.load({**document, "layers": {"groups": 8}}).on(8)) is None
    rate = {"learning_rate": {"float": [1e-4, 1e-2]}}
    assert everything(SearchSpace.load({**document, "train": rate}).on(6)) is None


def test_an_exhausted_space_has_no_candidates() -> None:
    found = candidates(Draws(SPACE, np.random.default_rng(0)), [], set())
    keys = {config.key for config in found}
    assert unseen(found, keys) == []
    assert unseen([*found, *found], set()) == found


@given(st.integers(0, 5000))
def test_van_der_corput_is_in_the_open_interval(index: int) -> None:
    assert 0 < van_der_corput(index) < 1


def test_wanted_costs_cover_the_range() -> None:
    assert [van_der_corput(i) for i in range(4)] == [0.5, 0.25, 0.75, 0.125]
    costs, rows = np.linspace(0, 1, 101), np.zeros((101, 1))
    chosen = [costs[spread(i, costs, rows, np.empty((0, 1)))] for i in range(7)]
    assert np.ptp(np.diff(np.sort(chosen))) < 0.03


def test_among_equal_costs_the_most_different_is_chosen() -> None:
    rows = np.array([[0.1], [0.9], [0.5]])
    assert spread(0, np.zeros(3), rows, np.array([[0.0]])) == 1
    assert spread(0, np.zeros(3), rows, np.array([[0.0], [1.0]])) == 2
