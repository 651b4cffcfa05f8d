"""Who is alive, told by the machine where it can and by signs where it cannot."""

import os
import subprocess
import sys
from types import SimpleNamespace

import optuna
import pytest

from autopeft.study import heart
from autopeft.study.heart import INTERVAL, PATIENCE, Heart


@pytest.fixture
def clock(monkeypatch):
    now = SimpleNamespace(seconds=0.0)
    monkeypatch.setattr(heart, "time", SimpleNamespace(monotonic=lambda: now.seconds))
    return now


def beating(study, **changes):
    """The owner that a process elsewhere writes, and how it gives its next sign."""
    owner = {**Heart(study).owner, "id": "other", **changes}

    def beat(number):
        study.set_user_attr("process:other", {**owner, "beat": number})

    beat(1)
    return owner, beat


ELSEWHERE = [{"host": "b"}, {"boot": "another"}, {"namespace": "pid:[1]"}]


@pytest.mark.parametrize("where", ELSEWHERE)
def test_of_a_process_elsewhere_its_signs_tell(where, clock):
    """Also where its number is that of a process here, or of none."""
    study = optuna.create_study()
    mine, (owner, beat) = Heart(study), beating(study, pid=2**22 + 1, **where)
    assert mine.is_alive(owner)
    assert mine.is_in_doubt(owner)
    clock.seconds += INTERVAL
    beat(2)
    assert mine.is_alive(owner)
    assert not mine.is_in_doubt(owner)
    clock.seconds += PATIENCE - 1
    assert mine.is_alive(owner)
    clock.seconds += 2
    assert not mine.is_alive(owner)
    beat(0)
    assert not mine.is_alive(owner)


def test_of_a_process_here_the_machine_tells():
    study = optuna.create_study()
    mine = Heart(study)
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    started = heart._start(child.pid)
    owner, beat = beating(study, pid=child.pid, started=started)
    assert mine.is_alive(owner)
    assert not mine.is_in_doubt(owner)
    assert not mine.is_alive({**owner, "started": started + 1})
    child.kill()
    while os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT) is None:
        pass
    assert not mine.is_alive(owner)  # of a zombie nothing is left
    child.wait()
    beat(2)
    assert not mine.is_alive(owner)


def test_a_process_that_has_said_its_end_is_dead_though_it_runs():
    study = optuna.create_study()
    first, second = Heart(study), Heart(study)
    first.start()
    assert second.is_alive(first.owner)
    assert not second.is_alone()
    first.stop()
    assert not second.is_alive(first.owner)
    assert second.is_alone()
