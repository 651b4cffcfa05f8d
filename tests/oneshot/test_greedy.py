from collections import defaultdict
from dataclasses import replace
from functools import cache

import pytest

from autopeft.core.config import PeftConfig
from autopeft.oneshot.greedy import filled, proposed
from autopeft.space import SearchSpace
from tests.contracts import proposer as kit

TWO = SearchSpace(
    layers={"groups": 2},
    place=[
        {"method": "lora", "r": {"choice": [0, 2, 8]}, "where": {"subset": "groups"}},
        {"method": "bitfit", "where": {"subset": "groups"}},
    ],
)


SPACES = {"two decisions": TWO} | {n: SearchSpace.load(n) for n in ("autopeft", "s4", "noah")}


def by_size(problem):
    """What is larger is worth more, though less for its parameters."""

    @cache
    def worth(placement):
        told = defaultdict(float)
        for layer in range(problem.space.n_layers):
            one = PeftConfig.of([replace(placement, layers=(layer,))])
            told[layer] = problem.params(one) ** 0.9
        return told

    return worth


@pytest.mark.parametrize("name", SPACES)
def test_every_space_is_filled(name, trainer):
    """Also where a placement takes two decisions, a size and a layer."""
    problem = kit.problem(trainer, space=SPACES[name])
    path = [*filled(problem, by_size(problem))]
    sizes = [problem.params(each.config) for each in path]
    assert len(path) > 3
    methods = {p.method for p in problem.corner(1.0).config.placements}
    assert {p.method for p in path[-1].config.placements} == methods
    assert sizes[-1] > 0.5 * problem.params(problem.corner(1.0).config)
    assert len(proposed(problem, by_size(problem), 3)) == 3
