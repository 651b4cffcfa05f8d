"""A run that is killed or interrupted is continued: nothing that has ended is repeated or lost."""

import os
import random
import signal
import time

import psutil
import pytest

from autopeft.core.errors import StudyError
from autopeft.study.record import find_record, read_trials
from tests.contracts import engine as kit
from tests.contracts.curves import PAUSED, Curves


def trials_of(folder):
    record = find_record(f"sqlite:///{folder}/study.db", "toy")
    return read_trials(record, [o.name for o in kit.OBJECTIVES])


def ended(trials):
    return [t for t in trials if t.state in {"complete", "stopped"}]


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError(f"not within {seconds} s")


def is_at_work(folder, count):
    """Whether so many trials have ended and another has just begun."""
    try:
        trials = trials_of(folder)
    except (StudyError, KeyError):
        return False
    begins = any(t.state == "running" and not t.reports for t in trials)
    return begins and len(ended(trials)) >= count


def n_paused(folder):
    return sum(t.state == "paused" for t in trials_of(folder))


def works(process):
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def workers_of(process):
    """All that it has started but Ray's agents, which notice within minutes that Ray is gone."""
    family = psutil.Process(process.pid).children(recursive=True)
    return [child for child in family if "Agent" not in " ".join(child.cmdline())]


@pytest.mark.parametrize(
    ("engine", "how"),
    [("inline", signal.SIGTERM), ("ray-packed", signal.SIGKILL), ("ray", signal.SIGINT)],
)
def test_an_interrupted_run_is_continued(engine, how, tmp_path):
    process = kit.start(tmp_path, engine)
    wait_for(lambda: is_at_work(tmp_path, 3))
    family = workers_of(process)
    process.send_signal(how)
    assert process.wait(60) != 0
    wait_for(lambda: not any(map(works, family)), 30)
    before = trials_of(tmp_path)
    assert len(ended(before)) < 12
    if how != signal.SIGKILL:
        assert not any(t.state == "running" for t in before)
    with kit.make_study(tmp_path, n_trials=12) as study:
        kit.ENGINES["inline"]().run(study, Curves, kit.make_halving())
        after = study.trials()
    assert [kit.outcome([after[t.number]]) for t in ended(before)] == [
        kit.outcome([t]) for t in ended(before)
    ]
    trained = [t.config.key for t in ended(after)]
    assert len(trained) == len(set(trained)) == 12
    interrupted = [t for t in before if t.state == "interrupted"]
    assert len(interrupted) in range(kit.PACK + 1 if engine.endswith("packed") else 2)
    assert all(after[t.number].config.key in trained for t in interrupted)
    assert {t.state for t in after} <= {"complete", "stopped", "rejected"}


def test_trials_that_pause_are_continued(tmp_path):
    process = kit.start(tmp_path, n_trials=20, stopper="synchronous_halving")
    wait_for(
        lambda: (
            is_at_work(tmp_path, 0) and sum(t.state == "paused" for t in trials_of(tmp_path)) >= 3
        )
    )
    process.kill()
    assert process.wait(60) != 0
    with kit.make_study(tmp_path, n_trials=20, rungs=kit.THREE_RUNGS) as study:
        kit.ENGINES["inline"]().run(study, Curves, kit.make_synchronous())
        after = study.trials()
    trained = [t.config.key for t in ended(after)]
    assert len(trained) == len(set(trained)) == 20
    assert {t.state for t in after} <= {"complete", "stopped", "rejected"}
    assert not list(tmp_path.rglob(PAUSED))


class Quick(Curves):
    """Takes long enough to be killed in."""

    def advance(self):
        time.sleep(0.02)
        return super().advance()


def run_quickly(folder, stopper):
    make, rungs = kit.STOPPERS[stopper]
    with kit.make_study(folder, n_trials=14, rungs=rungs) as study:
        kit.ENGINES["inline"]().run(study, Quick, make())
        return study.trials()


@pytest.mark.parametrize("stopper", kit.STOPPERS)
def test_a_run_that_is_killed_again_and_again_becomes_an_undisturbed_one(stopper, tmp_path):
    (tmp_path / "whole").mkdir()
    moments = random.Random(1)
    killed = 0
    for _ in range(12):
        process = os.fork()
        if not process:
            run_quickly(tmp_path, stopper)
            os._exit(0)
        time.sleep(moments.uniform(0.05, 0.4))
        os.kill(process, signal.SIGKILL)
        killed += os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == -signal.SIGKILL
    assert killed >= 4
    trials = run_quickly(tmp_path, stopper)
    assert kit.outcome(trials) == kit.outcome(run_quickly(tmp_path / "whole", stopper))
    assert not list(tmp_path.rglob(PAUSED))


def test_a_group_that_was_interrupted_goes_on_where_it_was(tmp_path):

    def interrupt(study):
        if sum(t.state == "paused" for t in study.trials()) == 2:
            raise KeyboardInterrupt

    engine = kit.ENGINES["inline"]()
    with (
        pytest.raises(KeyboardInterrupt),
        kit.make_study(tmp_path, n_trials=3, rungs=kit.THREE_RUNGS) as study,
    ):
        engine.run(study, Curves, kit.make_synchronous(), interrupt)
    with kit.make_study(tmp_path, n_trials=3, rungs=kit.THREE_RUNGS) as study:
        engine.run(study, Curves, kit.make_synchronous())
        trials = study.trials()
    assert sorted(len(t.reports) for t in trials) == [1, 3, 3]
    searched = [t for t in ended(trials) if t.baseline is None]
    assert sorted(t.state for t in searched) == ["complete", "stopped"]
