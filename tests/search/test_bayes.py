from __future__ import annotations

import math
import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import optuna
import pytest
import torch

from autopeft.core.config import PeftConfig, Placement
from autopeft.core.errors import AttachError, StudyError
from autopeft.objective.objective import Objective, load_objectives
from autopeft.objective.pareto import hypervolume
from autopeft.objective.quantity import Known
from autopeft.search.bayes import BayesSampler
from autopeft.search.features import features
from autopeft.search.history import History, Observation
from autopeft.space.space import SearchSpace
from tests.contracts import sampler as kit

optuna.logging.set_verbosity(optuna.logging.ERROR)

ACCURACY = Objective("accuracy", "maximize")
PARAMS = Objective("trainable_params", "minimize", known=True, scale="log", reference=1e8)
MEMORY = Objective("peak_memory", "minimize", known=True, scale="log", reference=1e11)
SPACE = kit.problem().space


def memory(config: PeftConfig) -> float:
    """Grows with the number of layers that gradients pass."""
    return 1e9 + 1e8 * (6 - min(config.layers, default=6)) + 16 * kit.cost(config)


def observed(n: int, objectives: tuple[Objective, ...] = (ACCURACY, PARAMS)) -> History:
    """`n` random configurations with the values of the contract's problem."""
    rng = np.random.default_rng(0)
    values = {"accuracy": kit.accuracy, "trainable_params": kit.cost, "peak_memory": memory}
    found = [SPACE.draw(rng).config for _ in range(n)]
    observations = tuple(
        Observation(c, tuple(o.loss(values.get(o.name, kit.accuracy)(c)) for o in objectives))
        for c in found
    )
    return History(observations, (), frozenset(c.key for c in found))


def test_running_trials_are_not_proposed_twice() -> None:
    """What runs is believed to come out as expected, so the next proposal is another."""
    history = observed(12)
    sampler = BayesSampler(SPACE, (ACCURACY, PARAMS), {"trainable_params": Known(kit.cost)})
    chosen: list[PeftConfig] = []
    for _ in range(3):
        pending = tuple(Observation(c, (math.nan, PARAMS.loss(kit.cost(c)))) for c in chosen)
        seen = history.seen | {c.key for c in chosen}
        now = History(history.observed, pending, seen)
        chosen.append(sampler.choose(now, np.random.default_rng(0), 12 + len(chosen)).config)
    assert len({c.key for c in chosen}) == 3
    rows = features([*chosen, *(o.config for o in history.observed)], SPACE.n_layers)
    assert np.linalg.norm(rows[1] - rows[0]) > 0.1


@pytest.mark.parametrize(
    "objectives",
    [
        (ACCURACY,),
        (ACCURACY, PARAMS),
        (PARAMS, ACCURACY),
        (ACCURACY, PARAMS, MEMORY),
        (ACCURACY, Objective("f1", "maximize"), PARAMS),
    ],
    ids=lambda objectives: "-".join(o.name for o in objectives),
)
def test_any_objectives_in_any_order(objectives: tuple[Objective, ...]) -> None:
    known = {"trainable_params": Known(kit.cost), "peak_memory": Known(memory, slow=True)}
    sampler = BayesSampler(SPACE, objectives, known, seed=0)
    history = observed(12, objectives)
    drawn = sampler.choose(history, np.random.default_rng(0), 12)
    assert SPACE.at(drawn.point) == drawn
    assert drawn.config.key not in history.seen


def test_limits_hold_for_cheap_and_slow_objectives() -> None:
    known = {"trainable_params": Known(kit.cost), "peak_memory": Known(memory, slow=True)}
    limits = {"trainable_params": 4e4, "peak_memory": 1.5e9}
    sampler = BayesSampler(SPACE, (ACCURACY, PARAMS), known, limits)
    for n in (0, 3, 14):
        config = sampler.choose(observed(n), np.random.default_rng(n), n).config
        assert kit.cost(config) <= limits["trainable_params"]
        assert memory(config) <= limits["peak_memory"]


def test_who_says_within_is_proposed_what_is_nearly_best() -> None:
    known, close = {"trainable_params": Known(kit.cost)}, replace(ACCURACY, within=0.02)
    history = observed(14)
    worth = {}
    for accuracy in (ACCURACY, close):
        sampler = BayesSampler(SPACE, (accuracy, PARAMS), known)
        proposals = [
            sampler.choose(history, np.random.default_rng(n), n).config for n in range(14, 22)
        ]
        worth[accuracy] = np.mean([kit.accuracy(config) for config in proposals])
    assert worth[close] > worth[ACCURACY] + 0.01


def test_a_search_for_what_is_nearly_best_begins_with_what_was() -> None:
    known, empty = {"trainable_params": Known(kit.cost)}, History((), (), frozenset())
    study = observed(60).observed
    best = sorted((kit.accuracy(o.config) for o in study), reverse=True)
    first = {}
    for accuracy in (ACCURACY, replace(ACCURACY, within=0.02)):
        sampler = BayesSampler(SPACE, (accuracy, PARAMS), known, earlier=[study])
        proposals = [sampler.choose(empty, np.random.default_rng(n), n).config for n in range(3)]
        first[accuracy.within] = np.mean([kit.accuracy(config) for config in proposals])
    assert first[0.02] > best[12] > first[None]


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_limits_that_nothing_keeps_are_told() -> None:
    space = SearchSpace(place=[{"method": "lora", "r": {"int": [1, 64]}}]).on(SPACE.shape)
    objectives, known = (replace(ACCURACY, within=0.02), PARAMS), Known(kit.cost)
    limits = {"trainable_params": 10.0}
    sampler = BayesSampler(space, objectives, {"trainable_params": known}, limits)
    with pytest.raises(RuntimeError, match="within the limits"):
        sampler.choose(History((), (), frozenset()), np.random.default_rng(0), 0)


def test_the_head_alone_is_left_to_a_search_for_the_whole_front() -> None:
    place = [{"method": "lora", "r": {"choice": [0, 64]}}]
    space = SearchSpace(place=place).on(SPACE.shape)
    empty, full = (space.resolve(dict.fromkeys(space.dimensions, r)) for r in (0, 64))
    history, known = observed(14), {"trainable_params": Known(kit.cost)}

    def proposed(accuracy: Objective, history: History) -> set[str]:
        sampler = BayesSampler(space, (accuracy, PARAMS), known, earlier=())
        choices = (sampler.choose(history, np.random.default_rng(n), n) for n in range(4))
        return {drawn.config.key for drawn in choices}

    leading = replace(ACCURACY, within=0.02)
    assert empty.key in proposed(ACCURACY, history)
    assert proposed(leading, history) == {full.key}
    tried = replace(history, seen=history.seen | {full.key})
    assert proposed(leading, tried) == {empty.key}


def test_slow_objectives_are_computed_for_few_candidates_only() -> None:
    asked: list[str] = []

    def slow(config: PeftConfig) -> float:
        asked.append(config.key)
        return memory(config)

    known = {"trainable_params": Known(kit.cost), "peak_memory": Known(slow, slow=True)}
    sampler = BayesSampler(SPACE, (ACCURACY, PARAMS, MEMORY), known)
    history = observed(12, (ACCURACY, PARAMS, MEMORY))
    chosen = sampler.choose(history, np.random.default_rng(0), 12).config
    assert len(asked) == len(set(asked)) <= 16
    assert chosen.key in asked


def test_the_first_trials_cover_the_costs() -> None:
    sampler = BayesSampler(SPACE, kit.problem().objectives, kit.problem().known)
    study, costs = kit.new_study(sampler), []
    for _ in range(8):
        trial, config = kit.ask(study, SPACE)
        costs.append(math.log10(1 + kit.cost(config)))
        study.tell(trial, [kit.accuracy(config), kit.cost(config)])
    rng = np.random.default_rng(0)
    drawn = [math.log10(1 + kit.cost(SPACE.draw(rng).config)) for _ in range(8)]
    assert min(costs) <= min(drawn)
    assert np.ptp(costs) > np.ptp(drawn)


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_an_exhausted_space_falls_back_and_says_so() -> None:
    tiny = SearchSpace.load({"place": [{"method": "lora", "r": {"choice": [0, 4]}}]}).on(2)
    study = kit.new_study(BayesSampler(tiny, kit.problem().objectives, kit.problem().known))
    for i in range(4):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore" if i >= 2 else "error", UserWarning)
            trial, config = kit.ask(study, tiny)
        study.tell(trial, [0.5, kit.cost(config)])
    fallbacks = [trial.user_attrs.get("fallback") for trial in study.trials]
    assert fallbacks[:2] == [None, None]
    assert all("no unseen configuration" in str(reason) for reason in fallbacks[2:])


def test_trouble_in_the_model_falls_back() -> None:
    """Losses of which none is finite leave nothing to fit."""

    def broken(config: PeftConfig) -> float:
        raise ArithmeticError("no number")

    sampler = BayesSampler(SPACE, (ACCURACY, PARAMS), {"trainable_params": Known(broken)})
    study = kit.new_study(sampler)
    with pytest.warns(UserWarning, match="trial 0 is random, for ArithmeticError: no number"):
        kit.ask(study, SPACE)
    assert "ArithmeticError" in study.trials[0].user_attrs["fallback"]


def test_configurations_that_do_not_fit_are_left_out() -> None:
    """Neither a baseline nor a candidate without a known value disturbs the model."""
    objectives = kit.problem().objectives

    def picky(config: PeftConfig) -> float:
        if any(p.method in {"prefix", "bitfit"} for p in config.placements):
            raise AttachError("does not fit")
        return kit.cost(config)

    sampler = BayesSampler(SPACE, objectives, {"trainable_params": Known(picky)})
    unfit = Observation(PeftConfig.of([Placement.of("prefix", [0], {"length": 3})]), (-0.9, np.nan))
    history = observed(12)
    for n in (0, 12):
        past = History((*history.observed[:n], unfit), (unfit,), history.seen)
        config = sampler.choose(past, np.random.default_rng(0), n).config
        assert all(p.method not in {"prefix", "bitfit"} for p in config.placements)


def test_with_slow_objectives_the_record_alone_decides() -> None:
    """Neither earlier proposals of a sampler nor what was asked before change a proposal."""
    objectives = (ACCURACY, PARAMS, MEMORY)
    known = {"trainable_params": Known(kit.cost), "peak_memory": Known(memory, slow=True)}

    def sampler() -> BayesSampler:
        return BayesSampler(SPACE, objectives, known, n_startup=4)

    def points(fresh: bool) -> list[Any]:
        study = optuna.create_study(sampler=sampler(), directions=[o.goal for o in objectives])
        for number in range(6):
            if fresh and number >= 4:
                study.sampler = sampler()
                study.sampler.choose(observed(9, objectives), np.random.default_rng(3), 9)
            trial, config = kit.ask(study, SPACE)
            assert "fallback" not in trial.user_attrs
            costs = {"trainable_params": kit.cost(config), "peak_memory": memory(config)}
            trial.set_user_attr("known", costs)
            study.tell(trial, [kit.accuracy(config), *costs.values()])
        return [trial.params for trial in study.trials]

    assert points(fresh=False) == points(fresh=True)


def test_equal_values_do_no_harm() -> None:
    history = observed(12)
    flat = tuple(Observation(o.config, (-0.5, o.losses[1])) for o in history.observed)
    sampler = BayesSampler(SPACE, kit.problem().objectives, kit.problem().known)
    config = sampler.choose(History(flat, (), history.seen), np.random.default_rng(0), 12).config
    assert config.key not in history.seen


def test_torch_is_left_as_it_was() -> None:
    torch.manual_seed(5)
    before, threads = torch.get_rng_state().clone(), torch.get_num_threads()
    sampler = BayesSampler(SPACE, kit.problem().objectives, kit.problem().known)
    sampler.choose(observed(10), np.random.default_rng(0), 10)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads
    assert torch.get_default_dtype() == torch.float32


def test_something_must_be_measured() -> None:
    with pytest.raises(StudyError, match="needs an objective that training measures"):
        BayesSampler(SPACE, (PARAMS,), {"trainable_params": Known(kit.cost)})


def test_it_beats_random_search() -> None:
    """Hypervolume after 20 trials, on average over seeds, with the same first trials of its own."""
    objectives = load_objectives("accuracy-params")
    reference = [objectives[0].loss(0.6), objectives[1].loss(1e6)]

    def volume(name: str, seed: int) -> float:
        setting = kit.problem(seed)
        study = kit.new_study(kit.SAMPLERS[name](setting))
        for _ in range(20):
            trial, config = kit.ask(study, SPACE)
            study.tell(trial, [kit.accuracy(config), kit.cost(config)])
        losses = [
            [o.loss(v) for o, v in zip(objectives, trial.values, strict=True)]
            for trial in study.trials
        ]
        return hypervolume(losses, reference)

    found = {
        name: np.mean([volume(name, seed) for seed in range(2)]) for name in ("bayes", "random")
    }
    assert found["bayes"] > 1.05 * found["random"]
