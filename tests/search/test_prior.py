from __future__ import annotations

import numpy as np
import pytest

from autopeft.core.config import PeftConfig
from autopeft.objective.objective import load_objectives
from autopeft.objective.quantity import Known
from autopeft.search.bayes import BayesSampler
from autopeft.search.history import History, Observation
from autopeft.search.prior import N_LEAST, N_TRUSTED, Prior
from tests.contracts import sampler as kit

SPACE, OBJECTIVES = kit.problem().space, load_objectives("accuracy-params")


def observed(n: int, seed: int = 0, flip: bool = False) -> list[Observation]:
    """Random configurations with the values of the contract's problem, or the opposite of them."""
    rng = np.random.default_rng(seed)
    configs = [SPACE.draw(rng).config for _ in range(n)]
    sign = -1.0 if flip else 1.0
    return [
        Observation(c, (-sign * kit.accuracy(c), OBJECTIVES[1].loss(kit.cost(c)))) for c in configs
    ]


def configs(n: int) -> list[PeftConfig]:
    return [o.config for o in observed(n, seed=7)]


def test_it_knows_the_order_of_unseen_configurations() -> None:
    found = Prior([observed(60)], [0], SPACE.n_layers)
    unseen = configs(40)
    expected = found(unseen)
    assert expected.shape == (40, 1)
    accuracies = [kit.accuracy(c) for c in unseen]
    assert np.corrcoef(expected[:, 0], accuracies)[0, 1] < -0.8


def test_studies_that_say_too_little_are_passed_over() -> None:
    short = observed(N_LEAST - 1)
    silent = [Observation(o.config, (np.nan, o.losses[1])) for o in observed(30)]
    prior = Prior([short, silent, []], [0], SPACE.n_layers)
    assert len(prior) == 0
    assert prior(configs(3)).shape == (3, 0)


def test_the_weight_of_an_earlier_study_falls_with_the_trials() -> None:
    prior = Prior([observed(60), observed(60)], [0], SPACE.n_layers)
    assert prior.weights(10, 1).tolist() == [*[1.0] * 10, 12.0, 12.0]
    assert prior.weights(10, N_TRUSTED).tolist() == prior.weights(10, 1).tolist()
    assert prior.weights(10, 100 * N_TRUSTED) == pytest.approx([*[1.0] * 10, 1.2, 1.2])
    assert Prior([], [0], SPACE.n_layers).weights(3, 50).tolist() == [1.0] * 3


def test_what_promises_is_low() -> None:
    prior, unseen = Prior([observed(60), observed(60, seed=1)], [0], SPACE.n_layers), configs(40)
    accuracies = [kit.accuracy(c) for c in unseen]
    assert np.corrcoef(prior.promise(unseen), accuracies)[0, 1] < -0.8


def errors(prior_flipped: bool | None) -> float:
    """Mean error of the belief after few observations, with an earlier study or without one."""
    from autopeft.objective.known import KnownLosses
    from autopeft.search.belief import Belief

    known = KnownLosses(OBJECTIVES, {"trainable_params": Known(kit.cost)}, {})
    earlier = [] if prior_flipped is None else [observed(60, seed=1, flip=prior_flipped)]
    prior, unseen = Prior(earlier, known.learned, SPACE.n_layers), configs(60)
    belief = Belief(observed(6), [], known, unseen, SPACE.n_layers, prior)
    means, _ = belief(unseen)
    return float(np.abs(means[:, 0] + [kit.accuracy(c) for c in unseen]).mean())


def test_an_earlier_study_helps_and_one_that_is_wrong_is_seen_through() -> None:
    without = errors(None)
    assert errors(False) < 0.8 * without
    assert errors(True) < 1.5 * without


def test_first_proposals_are_what_promises_most() -> None:
    """With an earlier study the first trials are better than without it."""

    def first(earlier: list[list[Observation]]) -> float:
        known = {"trainable_params": Known(kit.cost)}
        sampler = BayesSampler(SPACE, OBJECTIVES, known, earlier=earlier)
        chosen: list[PeftConfig] = []
        for number in range(4):
            past = History((), (), frozenset(c.key for c in chosen))
            chosen.append(sampler.choose(past, np.random.default_rng(number), number).config)
        return float(np.mean([kit.accuracy(c) for c in chosen]))

    assert first([observed(60)]) > first([])
