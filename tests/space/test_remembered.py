"""Parts of passes are evaluated once for every way to take their decisions."""

from __future__ import annotations

import numpy as np
import pytest

from autopeft.space import SearchSpace
from autopeft.space.domain import Choice, Range
from autopeft.space.ground import Ground
from autopeft.space.remembered import Remembered
from autopeft.space.walk import Walk

SPACE = SearchSpace(
    layers={"groups": 2},
    place=[
        {"method": "lora", "r": {"choice": [0, 2, 4]}, "targets": {"subset": ["q", "v"]}},
        {"method": "adapter", "size": {"choice": [0, 8]}, "where": {"first": {"int": [1, 4]}}},
    ],
    train={"learning_rate": {"float": [1e-4, 1e-2], "log": True}},
).on(4)


def test_what_is_remembered_is_what_an_evaluation_finds() -> None:
    """Also the decisions, in the same order, so that equal random numbers give equal points."""
    for seed in range(100):
        fresh = SearchSpace.load(SPACE.space.to_dict()).on(4)
        ours, anew = (space.draw(np.random.default_rng(seed)) for space in (SPACE, fresh))
        assert list(ours.point.items()) == list(anew.point.items())
        assert ours == anew


@pytest.mark.parametrize("node", [Choice((1, 2, 3)), Range(0.0, 1.0)])
def test_only_decisions_on_a_grid_are_remembered(node: Choice | Range) -> None:
    seen: list[object] = []

    def evaluate(walk: Walk) -> object:
        seen.append(walk.value(node, "node"))
        return seen[-1]

    ground = Ground.of(SPACE.space, SPACE.shape)
    part, rng = Remembered[object](), np.random.default_rng(0)
    for _ in range(50):
        walk = Walk(ground, lambda dimension: dimension.sample(rng))
        assert part(walk, evaluate) == walk.chosen["node"]
    assert len(seen) == (3 if isinstance(node, Choice) else 50)
