"""The record keeps everything; nothing is repeated and nothing is lost."""

import subprocess
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from autopeft.core.errors import AutoPeftWarning, StudyError
from autopeft.core.report import Failure, Report
from autopeft.report.front import Front
from autopeft.space import SearchSpace
from autopeft.study.record import agree, find_record, read_trials
from autopeft.study.repeats import repeats
from autopeft.study.storage import release
from tests.contracts import engine as kit
from tests.contracts.curves import Curves, params
from tests.report.trials import OBJECTIVES, STUDY, complete


def trials_of(folder):
    record = find_record(f"sqlite:///{folder}/study.db", "toy")
    return read_trials(record, [o.name for o in kit.OBJECTIVES])


def has_containers():
    return (
        subprocess.run([*kit.CONTAINER, "true"], check=False, capture_output=True).returncode == 0
    )


@pytest.mark.parametrize(
    "within",
    [
        (),
        pytest.param(
            kit.CONTAINER,
            marks=pytest.mark.skipif(not has_containers(), reason="needs namespaces"),
        ),
    ],
    ids=["one machine", "two containers"],
)
def test_two_runs_at_once_share_a_study(tmp_path, within):
    """In containers both may have the same process numbers, on hosts of one name."""
    processes = [kit.start(tmp_path, n_runs=2, within=within) for _ in range(2)]
    assert [process.wait(120) for process in processes] == [0, 0]
    trials = trials_of(tmp_path)
    record = find_record(f"sqlite:///{tmp_path}/study.db", "toy")
    assert len({trial.user_attrs["owner"]["id"] for trial in record.trials}) == 2
    trained = [t.config.key for t in trials if t.state in {"complete", "stopped"}]
    assert len(trained) == len(set(trained)) == 12
    assert sum(t.baseline is not None and t.state == "complete" for t in trials) == 1
    assert not any(t.state in {"running", "waiting", "failed"} for t in trials)


def test_two_runs_at_once_wait_for_trials_of_each_other(tmp_path):
    settings = {"n_trials": 1 + 2 * kit.GROUP, "stopper": "synchronous_halving", "n_runs": 2}
    processes = [kit.start(tmp_path, **settings) for _ in range(2)]
    assert [process.wait(120) for process in processes] == [0, 0]
    record = find_record(f"sqlite:///{tmp_path}/study.db", "toy")
    assert len({trial.user_attrs["owner"]["pid"] for trial in record.trials}) == 2
    trials = trials_of(tmp_path)
    assert sum(t.state in {"complete", "stopped"} for t in trials) == 1 + 2 * kit.GROUP
    kit.check_groups(trials, tmp_path)


ENDS = {
    "finish": lambda study, trial: study.finish(trial),
    "stop": lambda study, trial: study.stop(trial, "behind"),
    "fail": lambda study, trial: study.fail(trial, Failure(0, "ValueError: no")),
    "lose": lambda study, trial: study.fail(trial, Failure(0, "OSError: no", fault="machine")),
    "leave": lambda study, trial: study.__exit__(None, None, None),
}


@pytest.mark.parametrize(
    ("end", "state"),
    [
        ("finish", "running"),
        ("stop", "interrupted"),
        ("fail", "running"),
        ("lose", "interrupted"),
        ("leave", "interrupted"),
        ("leave", "running"),
    ],
)
def test_who_was_taken_for_dead_does_nothing_to_a_trial_that_others_have(end, state, tmp_path):
    with kit.make_study(tmp_path) as mine, kit.make_study(tmp_path) as theirs:
        trial = mine.ask()
        mine.report(trial, Report(1, 1.0, {"accuracy": 0.5, "validation_loss": 1.0}))
        Path(trial.order.folder).mkdir(parents=True)
        stored = theirs.record.get_trials(deepcopy=False)[trial.number]
        assert release(theirs.record, stored._trial_id, {})
        if state == "running":
            assert theirs.ask().order.ahead == (3.0,)
        ENDS[end](mine, trial)
        (taken,) = trials_of(tmp_path)
        assert (taken.state, taken.error, len(taken.reports)) == (state, None, 1)
        assert Path(trial.order.folder).exists()


def test_pauses_are_not_counted_as_seconds(tmp_path, monkeypatch):
    """With one worker each of nine trials waits until all have been at the first rung."""
    now = [0.0]
    monkeypatch.setattr("autopeft.study.clock.time", SimpleNamespace(monotonic=lambda: now[0]))

    class Slow(Curves):
        def advance(self):
            now[0] += 1.0
            return super().advance()

    with kit.make_study(tmp_path, 1 + kit.GROUP, rungs=kit.THREE_RUNGS) as study:
        kit.ENGINES["inline"]().run(study, Slow, kit.make_synchronous())
        trials = study.trials()
    searched = [t for t in trials if t.baseline is None and t.state != "rejected"]
    assert len(searched) == kit.GROUP
    assert all(trial.seconds == len(trial.reports) for trial in searched)


def test_a_trial_that_pauses_says_so(tmp_path):
    with kit.make_study(tmp_path) as study:
        trial = study.ask()
        study.report(trial, Report(1, 1.0, {"accuracy": 0.5, "validation_loss": 1.0}))
        later = study.pause(trial, 1.0)
        assert later.order.ahead == (3.0,)
        assert trials_of(tmp_path)[0].state == "paused"
        assert not study.curves()[0].ended
        study.go_on(later)
        assert trials_of(tmp_path)[0].state == "running"


def test_limits_reject_before_training(tmp_path):
    seen = []

    class Watched(Curves):
        def join(self, member, config, order):
            seen.append(config)
            super().join(member, config, order)

    with kit.make_study(tmp_path, sampler="random", limits={"trainable_params": 200}) as study:
        kit.ENGINES["inline"]().run(study, Watched, kit.make_halving())
        trials = study.trials()
    assert all(params(config) <= 200 for config in seen)
    rejected = [t for t in trials if t.state == "rejected" and "limit" in t.error]
    assert rejected
    assert all(not t.reports for t in rejected)


def test_a_limit_that_rejects_everything_ends_the_search(tmp_path):
    with (
        kit.make_study(tmp_path, sampler="random", limits={"trainable_params": -1}) as study,
        pytest.raises(StudyError, match=r"limits: no configuration can be trained: .* limit is -1"),
    ):
        kit.ENGINES["inline"]().run(study, Curves, kit.make_halving())


def test_what_few_configurations_meet_is_found_and_a_dear_baseline_is_named(tmp_path, caplog):
    """Of 144 pairs of sizes in two groups one meets the limit, beside the head alone."""
    with kit.make_study(tmp_path, 3, sampler="random", limits={"trainable_params": 40}) as study:
        dear = SearchSpace(place=[{"method": "lora", "r": 8}]).on(4).resolve({})
        study.terms = replace(study.terms, baselines={**study.terms.baselines, "dear": dear})
        study._queue.baselines(study.terms.baselines, study._seen())
        kit.ENGINES["inline"]().run(study, Curves, kit.make_halving())
        trials = study.trials()
    trained = [t for t in trials if t.state in {"complete", "stopped"}]
    assert len(trained) == 3
    assert all(params(t.config) <= 40 for t in trained)
    assert caplog.messages == ["dear is not trained: trainable_params is 320, the limit is 40"]


@pytest.mark.parametrize("sampler", ["random", "bayes"])
def test_a_small_space_ends_with_a_line_when_it_is_exhausted(tmp_path, caplog, recwarn, sampler):
    place = [{"method": "lora", "r": {"choice": [0, 2, 4]}}]
    space = SearchSpace(layers={"groups": 1}, place=place, train={"learning_rate": 1e-3})
    with kit.make_study(tmp_path, n_trials=500, sampler=sampler, space=space) as study:
        kit.ENGINES["inline"]().run(study, Curves, kit.make_halving())
        trained = [t for t in study.trials() if t.state in {"complete", "stopped"}]
    assert len({t.config.key for t in trained}) == len(trained) == 3
    assert caplog.messages == ["the search ends after 3 trials: every configuration has been tried"]
    assert study.record.user_attrs["ended"] == "every configuration has been tried"
    assert not [w for w in recwarn if issubclass(w.category, AutoPeftWarning)]


def test_a_study_of_a_space_with_a_budget_ends(tmp_path):
    with kit.make_study(tmp_path, 7, "bayes", space=SearchSpace.load("s4")) as study:
        kit.ENGINES["inline"]().run(study, Curves, kit.make_halving())
        trials = study.trials()
    assert [t.state in {"complete", "stopped"} for t in trials] == [True] * 7


def test_points_of_trials_are_kept_when_they_are_queued_again(tmp_path):
    """Those of the search; the baseline has none, though the space contains it."""
    with kit.make_study(tmp_path, n_trials=4, sampler="random") as study:
        study.ask()
        ticket = study.ask()
        asked = study.trials()[ticket.number]
    with kit.make_study(tmp_path, n_trials=4, sampler="random") as study:
        again = [study.ask() for _ in range(2)]
        trials = study.trials()
    assert asked.point
    assert [trials[t.number].point for t in again] == [{}, asked.point]
    assert [t.config for t in again][1] == asked.config == study.space.resolve(asked.point)


def test_a_value_that_is_not_finite_is_a_failure(tmp_path):
    with kit.make_study(tmp_path) as study:
        trial = study.ask()
        study.report(trial, Report(1, 3.0, {"accuracy": float("nan"), "validation_loss": 1.0}))
        study.finish(trial)
        assert study.trials()[0].state == "failed"
        assert "not finite" in study.trials()[0].error
        other = study.ask()
        study.report(other, Report(1, 3.0, {"f1": 0.5}))
        study.finish(other)
        assert "unknown metric 'accuracy'" in study.trials()[other.number].error


def read_as_written(key, recorded):
    return recorded


def test_a_study_goes_on_as_it_was_begun(tmp_path):
    begun = {"space": {"name": "a", "place": [1]}, "model": {"name": "m", "weights": "01"}}
    with kit.make_study(tmp_path) as study:
        agree(study.record, begun, read_as_written)
        agree(study.record, {**begun, "model": {"name": "moved", "weights": "01"}}, read_as_written)
        with pytest.raises(
            StudyError, match=r"another space: place is '\[1\]' there, '\[2\]' here"
        ):
            agree(study.record, {**begun, "space": {"name": "a", "place": [2]}}, read_as_written)
        with pytest.raises(StudyError, match="another model: weights is '01' there, '02' here"):
            agree(study.record, {**begun, "model": {"name": "m", "weights": "02"}}, read_as_written)
        agree(study.record, {**begun, "new": 1}, read_as_written)
        with pytest.raises(StudyError, match="another new: '1' there, '2' here"):
            agree(study.record, {**begun, "new": 2}, read_as_written)


def test_a_record_of_another_version_is_refused(tmp_path):
    with kit.make_study(tmp_path) as study:
        study.record.set_user_attr("record", {"version": 99, "id": "x"})
    with pytest.raises(StudyError, match="has version 99, this autopeft reads version 1"):
        kit.make_study(tmp_path)
    with pytest.raises(StudyError, match="has version 99"):
        trials_of(tmp_path)


def test_what_is_not_there(tmp_path):
    with pytest.raises(StudyError, match="no record yet"):
        find_record(f"sqlite:///{tmp_path}/none.db", "toy")
    with kit.make_study(tmp_path):
        pass
    with pytest.raises(StudyError, match="did you mean 'toy'"):
        find_record(f"sqlite:///{tmp_path}/study.db", "toi")
    with pytest.raises(StudyError, match="cannot open"):
        find_record("postgresql+psycopg2://nobody@127.0.0.1:1/none", "toy")


def test_passwords_are_not_shown():
    with pytest.raises(StudyError) as caught:
        find_record("postgresql+psycopg2://nobody:geheim@127.0.0.1:1/none", "toy")
    assert "geheim" not in str(caught.value)


class Seeded(Curves):
    """Curves that depend a little on the seed."""

    def join(self, member, config, order):
        super().join(member, config, order)
        self.seeds = {**getattr(self, "seeds", {}), member: order.seed}

    def reach(self, member, rung):
        report = super().reach(member, rung)
        metrics = {**report.metrics}
        metrics["accuracy"] += 0.001 * self.seeds[member]
        return Report(report.step, report.fidelity, metrics, member)


def repeating(study, n_finalists, n_seeds):
    last = study.terms.rungs[-1]
    study.terms = replace(study.terms, n_finalists=n_finalists, n_seeds=n_seeds, lengths=(last,))
    return study


def test_finalists_and_baselines_are_trained_again_with_fresh_seeds(tmp_path):
    """A run that is continued queues only what has not been queued."""
    engine = kit.ENGINES["inline"]()
    with kit.make_study(tmp_path) as study:
        engine.run(study, Seeded, kit.make_halving())
        before = study.trials()
    with repeating(kit.make_study(tmp_path), 2, 3) as study:
        n_queued = study.queue_repeats()
        assert study.n_left == n_queued
    with repeating(kit.make_study(tmp_path), 2, 3) as study:
        assert study.queue_repeats() == 0
        engine.run(study, Seeded, kit.make_halving())
        trials = study.trials()
        assert study.n_left == 0
        assert study.queue_repeats() == 0
    repeats = trials[len(before) :]
    assert [t.state for t in repeats] == ["complete"] * n_queued
    assert trials[: len(before)] == before
    front = Front.of(before, kit.OBJECTIVES).trials
    again = [t.repeat_of for t in repeats]
    assert {front[0].number, 0} <= {*again} <= {0, *(t.number for t in front)}
    assert len({*again}) in (2, 3)
    assert again == 3 * again[: len({*again})]
    for number in {*again}:
        own = [t for t in repeats if t.repeat_of == number]
        first = before[number]
        gains = [t.values["accuracy"] - first.values["accuracy"] for t in own]
        assert gains == pytest.approx([0.001, 0.002, 0.003])
        assert all(t.config == first.config for t in own)


def test_no_finalists_leave_baselines_alone(tmp_path):
    with repeating(kit.make_study(tmp_path, n_trials=2), 0, 3) as study:
        kit.ENGINES["inline"]().run(study, Curves, kit.make_halving())
        assert len(study.trials()) == 2


def accuracy_of(trial):
    return trial.values["accuracy"]


def test_the_most_accurate_trial_is_a_finalist_and_the_front_follows():
    trials = [replace(t, folder=None) for t in STUDY]
    numbers = [t.number for t, _ in repeats(trials, OBJECTIVES[:2], 1, [7], [6.0])]
    assert numbers == [3, 0, 1, 2]
    numbers = [t.number for t, _ in repeats(trials, OBJECTIVES[:2], 3, [7], [6.0])]
    close = repeats(
        [replace(t, values={**t.values, "accuracy": 0.8}) for t in trials],
        OBJECTIVES[:2],
        2,
        [7],
        [6.0],
    )
    cheapest = min(
        (t for t in trials if t.state == "complete" and t.baseline is None),
        key=lambda t: t.values["trainable_params"],
    )
    assert next(close)[0].number == cheapest.number
    assert numbers[0] == max((t for t in trials if t.state == "complete"), key=accuracy_of).number
    assert {*numbers[3:]} <= {0, 1, 2}
    assert [a["repeat"] for _, a in repeats(trials[:1], OBJECTIVES, 2, [7, 8], [6.0])] == [
        "0:7:6",
        "0:8:6",
    ]
    assert list(repeats(trials[7:], OBJECTIVES, 2, [7], [6.0])) == []


def test_what_trains_nothing_is_evaluated_once_more_and_has_no_curve():
    trials = [replace(t, folder=None) for t in STUDY]
    assert trials[0].curve(OBJECTIVES).reports
    trials[0] = replace(trials[0], reports=(Report(0, 2.0, {"trained_elements": 0.0}),))
    assert not trials[0].curve(OBJECTIVES).reports
    due = [(t.number, a["seed"]) for t, a in repeats(trials, OBJECTIVES[:2], 1, [7, 8, 9], [6.0])]
    assert due == [(n, seed) for seed in (7, 8, 9) for n in (3, 0, 1, 2) if n or seed == 7]


def test_finalists_are_the_cheapest_ever_further_behind_the_best():
    worth = [(0.85, 300_000), (0.849, 290_000), (0.845, 60_000), (0.835, 40_000), (0.77, 9_000)]
    trials = [complete(number, *each, 1e9) for number, each in enumerate(worth)]
    found = [t.number for t, _ in repeats(trials, OBJECTIVES[:2], 5, [7], [6.0])]
    assert found == [0, 2, 3, 4, 1]


def test_all_get_the_length_that_suits_the_best_finalist():
    """First it alone is trained with both, then the others with the one that is better."""
    trials = [complete(n, a, 10**n, 1e9) for n, a in ((3, 0.80), (5, 0.85), (4, 0.845))]
    trials = [replace(t, reports=(Report(9, 3.0, {}),)) for t in sorted(trials, key=by_number)]
    first = [(5, 7, 3.0), (5, 8, 3.0), (5, 7, 6.0), (5, 8, 6.0)]

    def queued(own):
        due = repeats([*trials, *own], OBJECTIVES[:2], 2, [7, 8], [3.0, 6.0])
        return [(trial.number, attrs["seed"], attrs["epochs"]) for trial, attrs in due]

    def own(*values, state="complete"):
        made = [replace(trials[2], number=9 + n, repeat_of=5) for n in range(4)]
        epochs = (3.0, 3.0, 6.0, 6.0)
        return [
            replace(t, state=state, values={**t.values, "accuracy": v}, reports=(Report(9, e, {}),))
            for t, v, e in zip(made, values, epochs, strict=True)
        ]

    assert queued([]) == first
    assert queued(own(0.8, 0.8, 0.9, 0.9, state="running")) == first
    assert queued(own(0.8, 0.8, 0.9, 0.8)) == [*first, (4, 7, 6.0), (4, 8, 6.0)]
    assert queued(own(0.8, 0.9, 0.8, 0.8)) == [*first, (4, 7, 3.0), (4, 8, 3.0)]
    assert queued(own(0.8, 0.8, 0.8, 0.8)) == [*first, (4, 7, 3.0), (4, 8, 3.0)]
    assert queued(own(0, 0, 0, 0, state="failed")) == [*first, (4, 7, 6.0), (4, 8, 6.0)]
    names = [a["repeat"] for _, a in repeats(trials, OBJECTIVES[:2], 2, [7], [3.0, 6.0])]
    assert names == ["5:7", "5:7:6"]
    rerun_before = [*trials, *own(0.8, 0.8, 0.9, 0.9)[:2]]
    due = repeats(rerun_before, OBJECTIVES[:2], 2, [7, 8], [3.0, 6.0], {"5:7", "5:8"}.__contains__)
    assert [a["repeat"] for _, a in due] == ["5:7", "5:8", "5:7:6", "5:8:6"]


def by_number(trial):
    return trial.number


def test_one_run_with_one_evaluator_searches_and_repeats(tmp_path):
    evaluators = []

    def make():
        evaluators.append(Curves())
        return evaluators[-1]

    with repeating(kit.make_study(tmp_path, n_trials=4), 1, 3) as study:
        kit.ENGINES["inline"]().run(study, make, kit.make_halving())
        repeats = [t for t in study.trials() if t.repeat_of is not None]
    assert len({t.repeat_of for t in repeats} | {0}) * 3 == len(repeats)
    assert {t.state for t in repeats} == {"complete"}
    assert len(evaluators) == 1


def test_an_interrupted_repeat_is_run_again(tmp_path):
    engine = kit.ENGINES["inline"]()
    with kit.make_study(tmp_path, n_trials=1) as study:
        engine.run(study, Curves, kit.make_halving())
    with repeating(kit.make_study(tmp_path, n_trials=1), 1, 2) as study:
        study.queue_repeats()
        trial = study.ask()
        assert (trial.order.seed, trial.order.tests, trial.protected) == (1, True, True)
    with repeating(kit.make_study(tmp_path, n_trials=1), 1, 2) as study:
        assert study.n_left == 2
        assert study.queue_repeats() == 0
        engine.run(study, Curves, kit.make_halving())
        repeats = [t for t in study.trials() if t.repeat_of is not None]
    assert [t.state for t in repeats] == ["complete", "complete"]


def test_a_repeat_that_fails_is_recorded_and_not_tried_again(tmp_path):
    class Unlucky(Seeded):
        def reach(self, member, rung):
            if self.seeds[member] == 2:
                self.leave(member)
                return Failure(member, "RuntimeError: training diverged")
            return super().reach(member, rung)

    for _ in range(2):
        with repeating(kit.make_study(tmp_path, n_trials=1), 1, 3) as study:
            kit.ENGINES["inline"]().run(study, Unlucky, kit.make_halving())
            trials = study.trials()
        assert [t.state for t in trials] == ["complete", "complete", "failed", "complete"]
    (only,) = Front.of(trials, kit.OBJECTIVES).trials
    assert (only.number, only.n_seeds) == (0, 2)
    assert only.values["accuracy"] == pytest.approx(trials[0].values["accuracy"] + 0.002)
