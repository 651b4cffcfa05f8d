"""What becomes of trials that fail, by what is to blame."""

import math
from collections import Counter
from contextlib import nullcontext
from pathlib import Path

import pytest

from autopeft.core.errors import StudyError
from autopeft.core.report import Failure, Report
from autopeft.objective.quantity import Known
from autopeft.search.history import read_history
from tests.contracts import engine as kit
from tests.contracts.curves import Curves, params


def curves_that(fail):
    """An evaluator whose members fail as `fail(member)` says, where it says anything."""

    class Failing(Curves):
        def advance(self):
            events = []
            for event in super().advance():
                failure = fail(event.member)
                if failure is not None:
                    self.leave(event.member)
                events.append(failure or event)
            return events

    return Failing


def run(study, make=Curves):
    kit.ENGINES["inline"]().run(study, make, kit.make_halving())
    return study.trials()


def lost(member):
    return Failure(member, "OSError: [Errno 28] No space left on device", fault="machine")


def test_a_known_quantity_that_raises_fails_its_trial_alone(tmp_path):
    """Also in later runs, where it would be queued again."""

    def raises_for_adapters(config):
        if any(placement.method == "adapter" for placement in config.placements):
            raise ZeroDivisionError("no adapters here")
        return params(config)

    for n_trials in (6, 10):
        with kit.make_study(tmp_path, n_trials, sampler="random") as study:
            study.terms.known["trainable_params"] = Known(raises_for_adapters)
            trials = run(study)
        counted = [t for t in trials if t.state != "rejected"]
        assert len(counted) == n_trials
        assert {t.state for t in counted} >= {"complete", "failed"}
        errors = {t.error for t in counted if t.state == "failed"}
        assert errors == {"ZeroDivisionError: no adapters here"}


def test_what_is_not_a_number_keeps_no_limit(tmp_path):
    with kit.make_study(tmp_path, limits={"trainable_params": 1e9}, sampler="random") as study:
        study.terms.known["trainable_params"] = Known(lambda config: math.nan)
        assert study.terms.excess({"trainable_params": math.nan}).startswith("trainable_params is")
        with pytest.raises(StudyError, match="no configuration can be trained"):
            run(study)


def test_divergence_is_recorded_for_the_sampler(tmp_path):
    def diverges(member):
        return Failure(member, "no", fault="divergence") if member == 2 else None

    with kit.make_study(tmp_path, sampler="bayes") as study:
        run(study, curves_that(diverges))
        read = read_history(study.record.trials, study.space, kit.OBJECTIVES)
    losses = [observation.losses[0] for observation in read.observed]
    diverged = [t for t in study.record.trials if t.user_attrs.get("diverged")]
    assert [t.number for t in diverged] == [2]
    assert losses.count(max(losses)) == 2


def test_a_trial_that_the_machine_breaks_off_is_trained_again(tmp_path):
    broken_off = []

    def once(member):
        if len(broken_off) < 2 and member not in broken_off:
            broken_off.append(member)
            return lost(member)
        return None

    with kit.make_study(tmp_path) as study:
        trials = run(study, curves_that(once))
    states = Counter(t.state for t in trials)
    assert len(broken_off) == 2
    assert states["interrupted"] == states["failed"] == 0
    assert states["complete"] + states["stopped"] == 10
    assert [t.state for t in trials if t.baseline] == ["complete"]


def test_a_machine_that_breaks_everything_off_ends_the_run_and_costs_no_trial(tmp_path):
    with kit.make_study(tmp_path) as study:
        run_it = curves_that(lambda member: lost(member) if member else None)
        with pytest.raises(StudyError, match=r"run: the machine broke off the last 3 .*Errno 28"):
            run(study, run_it)
        assert not any(t.state == "failed" for t in study.trials())
        assert study.n_left == 9
    with kit.make_study(tmp_path) as study:
        states = Counter(t.state for t in run(study))
    assert states["complete"] + states["stopped"] == 10


def test_a_trial_that_alone_breaks_the_machine_fails_in_the_next_run(tmp_path):
    for ends in (pytest.raises(StudyError, match="broke off"), nullcontext()):
        with kit.make_study(tmp_path, 6) as study, ends:
            run(study, curves_that(lambda member: lost(member) if member == 1 else None))
    trials = study.trials()
    assert [t.error for t in trials if t.state == "failed"] == [lost(0).error]
    assert sum(t.state in {"complete", "stopped", "failed"} for t in trials) == 6


def test_a_baseline_that_has_failed_is_trained_by_the_next_run(tmp_path):
    """Beside the trials that a study may have."""
    broken = curves_that(lambda member: None if member else Failure(0, "ValueError: no"))
    with kit.make_study(tmp_path) as study:
        before = run(study, broken)
    assert before[0].state == "failed"
    with kit.make_study(tmp_path) as study:
        after = run(study)
    assert [t.state for t in after if t.baseline] == ["failed", "complete"]
    assert len([t for t in after if t.state != "rejected"]) == 11
    with kit.make_study(tmp_path) as study:
        assert run(study) == after


def test_what_a_process_leaves_that_dies_between_an_end_and_its_files(tmp_path):
    with kit.make_study(tmp_path) as study:
        complete, stopped = study.ask(), study.ask()
        study.report(complete, Report(1, 3.0, {"accuracy": 0.5}))
        study.finish(complete)
        study.stop(stopped, "behind")
    for trial in (complete, stopped):
        Path(trial.order.folder).mkdir(parents=True)
    with kit.make_study(tmp_path):
        assert Path(complete.order.folder).is_dir()
        assert not Path(stopped.order.folder).exists()


def test_only_trials_that_are_complete_or_go_on_keep_their_files(tmp_path):
    """Also where a process ends between the last write of a training and its record."""
    with kit.make_study(tmp_path) as study:
        complete, stopped, failed, lost, running = trials = [study.ask() for _ in range(5)]
        for trial in trials:
            Path(trial.order.folder).mkdir(parents=True)
            (Path(trial.order.folder) / "peft.safetensors").touch()
        study.report(complete, Report(1, 3.0, {"accuracy": 0.5}))
        study.finish(complete)
        study.stop(stopped, "behind")
        study.fail(failed, Failure(0, "ValueError: no"))
        study.fail(lost, Failure(0, "the worker process died", fault="machine"))
    states = {trial.number: trial.state for trial in study.trials()}
    assert [states[trial.number] for trial in trials] == [
        "complete",
        "stopped",
        "failed",
        "interrupted",
        "interrupted",
    ]
    assert [Path(trial.order.folder).exists() for trial in trials] == [
        trial.number in (complete.number, lost.number, running.number) for trial in trials
    ]


def test_a_worker_that_can_train_nothing_ends_the_run_at_once_and_costs_no_trial(tmp_path):
    """However often it is tried."""
    lacking = curves_that(lambda member: Failure(member, "StudyError: no data", fault="worker"))
    for _ in range(4):
        told = "run: a worker can train nothing: StudyError: no data; what is left waits"
        with kit.make_study(tmp_path) as study, pytest.raises(StudyError, match=told):
            run(study, lacking)
        assert Counter(t.state for t in study.trials()) == {"interrupted": 1}
        assert study.n_left == 10
    with kit.make_study(tmp_path) as study:
        states = Counter(t.state for t in run(study))
    assert states["complete"] + states["stopped"] == 10
    assert not states["failed"]
