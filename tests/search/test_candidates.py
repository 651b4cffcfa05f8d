from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autopeft.core.config import PeftConfig
from autopeft.search.candidates import (
    candidates,
    everything,
    least,
    nearest,
    spread,
    thrifty,
    unseen,
    van_der_corput,
)
from autopeft.search.features import features
from autopeft.space.bound import Drawn
from autopeft.space.space import SearchSpace
from tests.contracts import sampler as kit

SPACE = kit.problem().space


def test_candidates_are_new_distinct_and_inside() -> None:
    rng = np.random.default_rng(0)
    elites = [SPACE.draw(rng) for _ in range(3)]
    seen = {elite.config.key for elite in elites}
    drawn = candidates(SPACE, rng, elites, seen)
    keys = [each.config.key for each in drawn]
    assert len(keys) == len(set(keys)) > 100
    assert not seen & set(keys)
    assert all(SPACE.at(each.point) == each for each in drawn)


def test_neighbours_of_the_elites_are_among_them() -> None:
    """Nearer to the elite than random ones are."""
    elite = SPACE.draw(np.random.default_rng(3))

    def nearest(elites: list[Drawn]) -> float:
        drawn = candidates(SPACE, np.random.default_rng(0), elites, {elite.config.key})
        rows = features([each.config for each in (elite, *drawn)], SPACE.n_layers)
        return float(np.sort(np.linalg.norm(rows[1:] - rows[0], axis=1))[:10].mean())

    assert nearest([elite]) < 0.8 * nearest([])


def test_the_walk_reaches_the_cheap_end() -> None:
    rng = np.random.default_rng(0)
    cheapest = min(kit.cost(SPACE.draw(rng).config) for _ in range(30))
    drawn = thrifty(SPACE, np.random.default_rng(0), kit.cost, set())
    assert min(kit.cost(each.config) for each in drawn) < cheapest


@pytest.mark.parametrize("sign", [1, -1])
def test_a_long_walk_finds_the_ends_of_a_cost(sign: int) -> None:
    document = {
        "layers": {"groups": 3, "pattern": {"choice": ["uniform", "increasing"]}},
        "place": [
            {"method": "lora", "r": {"choice": [0, 4, 8, 16]}},
            {"method": "adapter", "size": {"choice": [0, 4, 16]}, "where": {"subset": "groups"}},
        ],
    }

    def cost(config: PeftConfig) -> float:
        return sign * kit.cost(config)

    space = SearchSpace.load(document).on(6)
    values = [d.values or () for d in space.dimensions.values()]
    points = (dict(zip(space.dimensions, point, strict=True)) for point in product(*values))
    costs = [cost(config) for config in map(space.resolve, points) if config.placements]
    assert cost(least(space, np.random.default_rng(0), cost)) == min(costs)


def test_a_small_space_is_taken_as_a_whole() -> None:
    lora = {"method": "lora", "r": {"choice": [0, 4, 16]}}
    document = {"layers": {"groups": 3}, "place": [lora]}
    found = everything(SearchSpace.load(document).on(6))
    assert found is not None
    assert len({each.config.key for each in found}) == len(found) == 27
    assert everything(SearchSpace.load({**document, "layers": {"groups": 8}}).on(8)) is None
    rate = {"learning_rate": {"float": [1e-4, 1e-2]}}
    assert everything(SearchSpace.load({**document, "train": rate}).on(6)) is None


def test_an_exhausted_space_has_no_candidates() -> None:
    drawn = candidates(SPACE, np.random.default_rng(0), [], set())
    assert unseen(drawn, {each.config.key for each in drawn}) == []
    assert unseen([*drawn, *drawn], set()) == drawn


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


def test_the_nearest_point_to_one_of_the_space_is_much_like_it() -> None:
    """A configuration of elsewhere has the neighbours of the point that is most like it."""
    far = []
    for seed in range(5):
        config = SPACE.draw(np.random.default_rng(seed)).config
        near = nearest(SPACE, np.random.default_rng(100 + seed), config).config
        other = SPACE.draw(np.random.default_rng(200 + seed)).config
        goal, *rows = features([config, near, other], SPACE.n_layers)
        distances = [float(np.linalg.norm(row - goal)) for row in rows]
        far.append(distances[0] / distances[1])
    assert np.mean(far) < 0.3
