"""Which sampler is next, by what the record tells."""

from datetime import datetime, timedelta

import optuna
import pytest
from optuna.trial import TrialState

from autopeft.objective.objective import load_objectives
from autopeft.search.bandit import ARM, N_FIRST, N_RECENT, BanditSampler
from autopeft.search.sampler import make_sampler
from tests.contracts import sampler as kit

OBJECTIVES = load_objectives("accuracy-params")
START = datetime(2026, 1, 1)


def trial(number, arm, accuracy, params=1e4, seconds=10.0, state=TrialState.COMPLETE, **attrs):
    made = optuna.create_trial(
        state=state,
        values=[accuracy, params] if state == TrialState.COMPLETE else None,
        user_attrs={**({ARM: arm} if arm else {}), "seconds": seconds, **attrs},
    )
    made.number, made.datetime_complete = number, START + timedelta(seconds=number)
    return made


def choice(rows):
    arms = {name: optuna.samplers.RandomSampler(0) for name in "ab"}
    bandit = BanditSampler(arms, OBJECTIVES)
    return bandit.choice([trial(number, *row) for number, row in enumerate(rows)])


EQUAL = [("a", 0.5), ("b", 0.5)] * N_FIRST


def test_every_sampler_has_a_few_trials_first():
    chosen = []
    for _ in range(2 * N_FIRST):
        chosen.append(choice([(name, 0.9 if name == "a" else 0.5) for name in chosen]))
    assert sorted(chosen) == ["a"] * N_FIRST + ["b"] * N_FIRST


def test_who_added_more_is_next():
    assert choice([*EQUAL, ("b", 0.8)]) == "b"
    assert choice([*EQUAL, ("a", 0.8)]) == "a"


def test_seconds_count():
    """The gains are equal but for the baseline before, the seconds are not."""
    rows = [(None, 0.5), *[("a", 0.5), ("b", 0.5)] * N_FIRST]
    assert choice([*rows, ("a", 0.6, 1e4, 500.0), ("b", 0.7, 1e4, 10.0)]) == "b"
    assert choice([*rows, ("a", 0.6, 1e4, 10.0), ("b", 0.7, 1e4, 500.0)]) == "a"


def test_what_was_added_long_ago_does_not_count():
    stale = [("a", 0.8), *[("a", 0.1)] * N_RECENT]
    assert choice([*EQUAL, *stale]) == "b"
    assert choice([*EQUAL, *stale, ("b", 0.81), *[("b", 0.1)] * (N_RECENT - 1)]) == "b"


def test_of_those_that_add_nothing_the_fewest_trials_decide():
    nothing = [("a", 0.1)] * N_RECENT + [("b", 0.1)] * (N_RECENT + 1)
    assert choice([*EQUAL, *nothing]) == "a"


def test_failed_and_stopped_trials_take_their_time():
    failed = [("b", 0.0, 1.0, 1000.0, TrialState.FAIL), ("b", 0.0, 1.0, 1000.0, TrialState.PRUNED)]
    gains = [("a", 0.7), ("b", 0.75)]
    assert choice([*EQUAL, *gains]) == "a"
    assert choice([*EQUAL, ("a", 0.7), ("b", 0.95)]) == "b"
    assert choice([*EQUAL, ("a", 0.7), ("b", 0.95), *failed]) == "a"


def after_rejections(rows, n):
    """The choice after so many rejected proposals of b."""
    made = [trial(number, *row) for number, row in enumerate(rows)]
    refused = TrialState.PRUNED
    made += [trial(len(rows) + i, "b", 0.0, state=refused, rejected="so") for i in range(n)]
    arms = {name: optuna.samplers.RandomSampler(0) for name in "ab"}
    return BanditSampler(arms, OBJECTIVES).choice(made)


def test_who_is_always_rejected_gives_way():
    """A few rejections cost nothing; of first trials they are none."""
    paid = [*EQUAL, ("a", 0.6), ("b", 0.8)]
    assert after_rejections(paid, 1) == "b"
    assert after_rejections(paid, N_RECENT) == "a"
    assert after_rejections([("a", 0.5)] * N_FIRST, N_FIRST) == "b"
    assert after_rejections([("a", 0.5)] * N_FIRST, N_RECENT) == "a"


def test_one_that_goes_on_keeps_its_sampler():
    """Whatever has happened since, and whoever asks."""
    setting = kit.problem()
    study = kit.new_study(make_sampler(("random", "tpe"), setting))
    first = study.ask()
    for _ in range(2):
        kit.ask(study, setting.space)
    bandit = make_sampler(("tpe", "random"), setting)
    again = study._storage.get_trial(first._trial_id)
    bandit.before_trial(study, again)
    assert again.user_attrs[ARM] == "random"
    assert bandit.choice(study.trials) == "tpe"


def test_what_is_queued_is_nobody_s():
    setting = kit.problem()
    study = kit.new_study(make_sampler(("random", "tpe"), setting))
    study.enqueue_trial({}, user_attrs={"config": {}})
    queued = study.ask()
    first, second = (kit.ask(study, setting.space)[0] for _ in range(2))
    assert ARM not in queued.user_attrs
    arms = [t.user_attrs.get(ARM) for t in study.trials]
    assert arms == [None, "random", "tpe"]
    assert (first.number, second.number) == (1, 2)


def test_one_sampler_is_no_bandit():
    assert not isinstance(make_sampler(("random",), kit.problem()), BanditSampler)
    with pytest.raises(Exception, match="unknown sampler 'tpf'"):
        make_sampler(("random", "tpf"), kit.problem())
