from __future__ import annotations

import numpy as np
import pytest

from autopeft.objective.known import KnownLosses
from autopeft.objective.objective import load_objectives
from autopeft.objective.quantity import Known
from autopeft.search.belief import N_MOST, Belief, learned_from
from autopeft.search.history import Observation
from autopeft.search.prior import Prior
from tests.contracts import sampler as kit


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


def test_gains_are_over_what_is_expected_not_over_what_was_measured() -> None:
    """A lucky value and a promise in much doubt count as much as the model believes of them."""
    space, objectives = kit.problem().space, load_objectives("accuracy-params")
    known = KnownLosses(objectives, {"trainable_params": Known(kit.cost)}, {})
    rng = np.random.default_rng(0)
    configs = [space.draw(rng).config for _ in range(32)]
    measured = [
        Observation(c, (-kit.accuracy(c) + rng.normal(0, 0.01), objectives[1].loss(kit.cost(c))))
        for c in configs
    ]
    told = measured[0]
    measured[0] = Observation(told.config, (-2.0, told.losses[1]), (4.0, 0.0))
    prior = Prior([], known.learned, space.n_layers)
    belief = Belief(measured[:-1], measured[-1:], known, [], space.n_layers, prior)
    means, _ = belief(configs)
    np.testing.assert_allclose(belief.reached, means)
    assert belief.reached[:, 0].min() > -1
    np.testing.assert_allclose(belief.observed[:-1], [o.losses for o in measured[:-1]])
    np.testing.assert_allclose(belief.observed[-1], means[-1])
