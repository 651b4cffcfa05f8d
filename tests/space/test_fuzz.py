"""Spaces broken at random are refused or mean something; `benchmarks.faults` does it for longer."""

from benchmarks.faults.dsl import Fuzz, fuzzed


def test_broken_spaces_are_refused_or_mean_something():
    row = fuzzed(Fuzz(2.0, seed=7))
    assert row["errors"] == {}
    assert row["ends"].keys() == {"refused", "means something"}
