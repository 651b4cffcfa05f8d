"""What one process writes, others see; a trial has one writer; little is asked of the database."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Barrier

import optuna
import pytest
import sqlalchemy
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.trial import TrialState

from autopeft.core.report import Report
from autopeft.study.record import open_storage
from autopeft.study.storage import flush, release, sign
from tests.contracts import engine as kit

SPACE = {"rate": FloatDistribution(1e-4, 1e-2, log=True), "r": CategoricalDistribution([0, 4])}


def opened(folder):
    return optuna.create_study(
        study_name="one",
        storage=open_storage(f"sqlite:///{folder}/study.db"),
        directions=["minimize", "minimize"],
        load_if_exists=True,
        sampler=optuna.samplers.RandomSampler(seed=0),
    )


def states(study):
    return [trial.state.name for trial in study.get_trials(deepcopy=False)]


@contextmanager
def statements():
    """The statements that are executed inside."""
    seen = []

    def note(*arguments):
        seen.append(arguments[2])

    sqlalchemy.event.listen(sqlalchemy.Engine, "before_cursor_execute", note)
    yield seen
    sqlalchemy.event.remove(sqlalchemy.Engine, "before_cursor_execute", note)


def test_what_is_flushed_is_what_optuna_reads(tmp_path):
    study = opened(tmp_path)
    study.enqueue_trial({"rate": 5e-3, "r": 4}, user_attrs={"baseline": "b"})
    for values in ([1.0, 2.0], [3.0, 4.0]):
        trial = study.ask(SPACE)
        trial.set_user_attr("reports", [1])
        flush(study)
        trial.set_user_attr("reports", [1, 2])
        study._storage.set_trial_system_attr(trial._trial_id, "generation", 3)
        study.tell(trial, values)
    study.tell(study.ask(SPACE), state=TrialState.PRUNED)
    running = study.ask(SPACE)
    running.set_user_attr("owner", {"pid": 1})
    flush(study)
    url = f"sqlite:///{tmp_path}/study.db"
    plain = optuna.load_study(study_name="one", storage=RDBStorage(url))
    again = optuna.load_study(study_name="one", storage=open_storage(url))
    assert again.get_trials() == plain.get_trials()
    glance = again._storage.glance(again._study_id)
    assert [dict(t.user_attrs) for t in glance] == [t.user_attrs for t in plain.get_trials()]
    assert not any(t.params for t in glance)
    kept, stored = study.get_trials(), plain.get_trials()
    assert [t.state.name for t in stored] == ["COMPLETE", "COMPLETE", "PRUNED", "RUNNING"]
    assert stored[0].params == {"rate": 5e-3, "r": 4}
    for here, there in zip(kept, stored, strict=True):
        assert (here.number, here.state, here.values) == (there.number, there.state, there.values)
        assert (here.params, here.distributions) == (there.params, there.distributions)
        assert here.user_attrs == there.user_attrs
        assert here.system_attrs == there.system_attrs
        assert here.datetime_start == there.datetime_start


def test_changes_of_another_process_are_seen(tmp_path):
    one, other = opened(tmp_path), opened(tmp_path)
    mine, theirs = one.ask(SPACE), other.ask(SPACE)
    assert (mine.number, theirs.number) == (0, 1)
    theirs.set_user_attr("key", "a")
    flush(other)
    assert one.get_trials()[1].user_attrs == {"key": "a"}
    theirs.set_user_attr("reports", [1])
    flush(other)
    assert one.get_trials()[1].user_attrs == {"key": "a", "reports": [1]}
    other.tell(theirs, state=TrialState.FAIL)
    other.enqueue_trial({"r": 4})
    assert states(one) == ["RUNNING", "FAIL", "WAITING"]
    assert one.ask(SPACE).params["r"] == 4
    assert states(other) == ["RUNNING", "FAIL", "RUNNING"]
    assert other.ask().number == 3
    assert states(one) == states(other)


def test_a_waiting_trial_is_started_once(tmp_path):
    one, other = opened(tmp_path), opened(tmp_path)
    one.enqueue_trial({"r": 4})
    assert states(other) == ["WAITING"]
    trial_id = other.get_trials()[0]._trial_id
    assert one.ask().number == 0
    assert not other._storage.set_trial_state_values(trial_id, TrialState.RUNNING)
    assert states(other) == ["RUNNING"]


def test_of_several_that_see_a_trial_wait_one_starts_it(tmp_path):
    studies = [opened(tmp_path) for _ in range(3)]
    for _ in range(10):
        studies[0].enqueue_trial({"r": 4})
    trial_ids = [trial._trial_id for trial in studies[0].get_trials()]
    for study in studies:
        assert states(study) == ["WAITING"] * 10
    at_once = Barrier(3)

    def started(study):
        claims = []
        for trial_id in trial_ids:
            at_once.wait()
            claims.append(study._storage.set_trial_state_values(trial_id, TrialState.RUNNING))
        return claims

    with ThreadPoolExecutor(3) as pool:
        claims = list(pool.map(started, studies))
    assert [sum(of_trial) for of_trial in zip(*claims, strict=True)] == [1] * 10


def test_a_trial_that_another_process_has_ended(tmp_path):
    one, other = opened(tmp_path), opened(tmp_path)
    trial = one.ask(SPACE)
    flush(one)
    other.tell(0, state=TrialState.FAIL)
    trial.set_user_attr("reports", [1])
    with pytest.raises(UpdateFinishedTrialError):
        flush(one)
    assert states(one) == ["FAIL"]
    assert one.get_trials()[0].user_attrs == {}
    one.tell(0, state=TrialState.PRUNED, skip_if_finished=True)
    flush(one)
    assert states(other) == ["FAIL"]


def owned(folder, owner):
    """A study whose trials belong to one process."""
    study = opened(folder)
    sign(study, {"owner": {"id": owner}})
    return study


def test_a_trial_is_taken_over_once_and_its_last_process_writes_no_more(tmp_path):
    """Though it lives, be it that the trial waits, runs elsewhere, or has ended there."""
    first, second, third = (owned(tmp_path, owner) for owner in "abc")
    trial = first.ask(SPACE)
    trial.set_user_attr("reports", [1])
    flush(first)
    for other in (second, third):
        assert [t.user_attrs["owner"] for t in other.get_trials()] == [{"id": "a"}]
    assert release(second, trial._trial_id, {"attempts": 1})
    assert not release(third, trial._trial_id, {"attempts": 1})
    assert states(third) == states(second) == ["WAITING"]
    refused_to(first, trial)
    taken = third.ask()
    assert (taken.number, taken.params) == (0, trial.params)
    assert taken.user_attrs == {"owner": {"id": "c"}, "reports": [1], "attempts": 1}
    assert not release(second, trial._trial_id, {"attempts": 2})
    refused_to(first, trial)
    assert release(third, trial._trial_id, {})
    again = first.ask()
    again.set_user_attr("reports", [1, 2])
    first.tell(again, [1.0, 2.0])
    refused_to(third, taken)
    assert third.get_trials()[0].user_attrs["reports"] == [1, 2]


def refused_to(study, trial):
    """A process is told that a trial is no longer its own, and changes nothing."""
    before = RDBStorage(study._storage._backend.url).get_trial(trial._trial_id)
    with pytest.raises(UpdateFinishedTrialError):
        trial.set_user_attr("reports", ["late"]) or flush(study)
    with pytest.raises(UpdateFinishedTrialError):
        study._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
    after = RDBStorage(study._storage._backend.url).get_trial(trial._trial_id)
    assert (before.state, before.user_attrs) == (after.state, after.user_attrs)


def test_a_distribution_that_does_not_go_with_the_others(tmp_path):
    study = opened(tmp_path)
    study.tell(study.ask(SPACE), [1.0, 1.0])
    with pytest.raises(ValueError, match="CategoricalDistribution"):
        opened(tmp_path).ask().suggest_categorical("r", [1, 2])


def test_running_trials_cost_nothing(tmp_path):
    """However many run, a proposal and a report take the same few statements."""
    with kit.make_study(tmp_path, n_trials=100, sampler="random") as study:
        counts = []
        for n in range(40):
            with statements() as seen:
                trial = study.ask()
                study.report(trial, Report(1, 1.0, {"accuracy": n, "validation_loss": n}))
                study.curves()
            counts.append(len(seen))
    assert max(counts[-5:]) <= min(counts[2:10]) + 1
    assert counts[-1] < 40


def test_a_process_killed_while_it_made_the_tables_leaves_room_for_one_study_of_a_name(tmp_path):
    url = f"sqlite:///{tmp_path}/study.db"
    with RDBStorage(url).engine.begin() as connection:
        connection.execute(sqlalchemy.text("drop index ix_studies_study_name"))
    names = [open_storage(url) for _ in range(2)]
    optuna.create_study(study_name="toy", storage=names[0])
    with pytest.raises(optuna.exceptions.DuplicatedStudyError):
        optuna.create_study(study_name="toy", storage=names[1])
