"""Spaces broken at random are refused or mean something; `benchmarks.faults` does it for longer."""

import numpy as np

from autopeft.space import SearchSpace
from benchmarks.faults.dsl import Fuzz, fuzzed


def test_broken_spaces_are_refused_or_mean_something():
    row = fuzzed(Fuzz(2.0, seed=7))
    assert row["errors"] == {}
    assert row["ends"].keys() == {"refused", "means something"}


def test_a_choice_of_patterns_may_stand_in_another():
    pattern = {"choice": ["uniform", {"choice": ["spindle", "bottleneck"]}]}
    layers = {"groups": 3, "pattern": pattern}
    space = SearchSpace(
        layers=layers,
        place=[{"method": "bitfit", "where": {"subset": "groups"}}],
    ).on(12)
    rng = np.random.default_rng(0)
    sizes = {tuple(space.draw(rng).config.layers) for _ in range(60)}
    assert {len(layers) for layers in sizes} >= {3, 4, 5, 6}
