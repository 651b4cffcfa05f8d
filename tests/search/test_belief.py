from __future__ import annotations

import numpy as np
import pytest

from autopeft.search.belief import N_MOST, learned_from


@pytest.mark.parametrize("n_known", [1, 2])
def test_of_many_observations_the_latest_and_the_best_for_their_cost_are_learned_from(
    n_known: int,
) -> None:
    rng = np.random.default_rng(n_known)
    losses, known = rng.random(900), rng.integers(0, 40, (900, n_known)).astype(float)
    losses[::7] = np.nan
    chosen = learned_from(losses, known)
    usable = np.flatnonzero(np.isfinite(losses))
    assert len(chosen) == len(set(chosen)) == N_MOST
    assert (np.diff(chosen) > 0).all()
    latest = N_MOST // 2
    assert chosen[-latest:].tolist() == usable[-latest:].tolist()

    def behind(i: int) -> float:
        least = min(losses[j] for j in usable if (known[j] <= known[i]).all())
        return float(losses[i] - least)

    best = sorted(usable[:-latest], key=behind)[: N_MOST - latest]
    assert set(chosen[:-latest]) == set(best)


def test_of_few_all_that_have_a_loss_are_learned_from() -> None:
    losses = np.array([0.5, np.nan, 0.1])
    assert learned_from(losses, np.ones((3, 1))).tolist() == [0, 2]
    assert learned_from(losses[:0], np.ones((0, 1))).tolist() == []
