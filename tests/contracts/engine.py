"""What every engine must do, run over all of them without a branch on one.

Trials follow tabulated curves: the accuracy of a configuration is a formula of its sizes, so that
a study of dozens of trials takes seconds and is the same everywhere.
"""

import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

import numpy as np
import pytest

from autopeft.core.errors import StudyError
from autopeft.engine.inline import Inline
from autopeft.engine.ray import RayEngine
from autopeft.engine.room import Room
from autopeft.method.count import trained_elements
from autopeft.objective.quantity import Known
from autopeft.search.halving import AsynchronousHalving, SynchronousHalving
from autopeft.search.sampler import Problem, make_sampler
from autopeft.search.stopping import Never
from autopeft.space import SearchSpace
from autopeft.study import wishes
from autopeft.study.queue import Queue
from autopeft.study.record import open_record
from autopeft.study.study import Study
from autopeft.study.terms import Terms
from tests.contracts.curves import (
    OBJECTIVES,
    PAUSED,
    BrokenCurves,
    Curves,
    Hopeless,
    Searching,
    SlowForEach,
    Stumbling,
    params,
)
from tests.shapes import encoder

PACK = 4
ENGINES = {
    "inline": lambda: Inline(),
    "ray": lambda: RayEngine(concurrency=1, folder=tempfile.mkdtemp()),
    "inline-packed": lambda: Inline(Room(members=PACK)),
    "ray-packed": lambda: RayEngine(
        concurrency=1, folder=tempfile.mkdtemp(), room=Room(members=PACK)
    ),
}

SPACE = SearchSpace(
    layers={"groups": 2},
    place=[
        {"method": "lora", "r": {"choice": [0, 2, 4, 8]}},
        {"method": "adapter", "size": {"choice": [0, 4, 16]}},
    ],
    train={"learning_rate": {"float": [1e-4, 1e-2], "log": True}},
)
RUNGS = (1.0, 3.0)
FOUR_LAYERS = encoder(4, 384, 20_000_000)


def make_study(  # noqa: PLR0913
    folder: Path,
    n_trials=10,
    sampler="tpe",
    limits=None,
    name="toy",
    url=None,
    rungs=RUNGS,
    space=SPACE,
    known=None,
    **more,
):
    space = space.on(FOUR_LAYERS, trained_elements)
    known, limits = {"trainable_params": Known(params), **(known or {})}, dict(limits or {})
    made = make_sampler(sampler, Problem(space, OBJECTIVES, known, limits))
    url = url or f"sqlite:///{folder}/study.db"
    record = open_record(url, name, OBJECTIVES, made)
    empty = SearchSpace(place=[], train={"learning_rate": 1e-3}).on(4).resolve({})
    terms = Terms(known, limits, n_trials, 0, rungs, str(folder), {"head-only": empty}, **more)
    return Study(record, space, OBJECTIVES, terms)


def make_halving():
    return AsynchronousHalving(RUNGS, 3.0, OBJECTIVES, "validation_loss")


THREE_RUNGS, GROUP = (1.0, 3.0, 9.0), 9


def make_synchronous():
    return SynchronousHalving(THREE_RUNGS, 3.0, OBJECTIVES, "validation_loss")


def check_groups(trials, folder):
    """Of every nine trials three were trained on and one to the end, none of them twice."""
    searched = [t for t in trials if t.state != "rejected" and t.baseline is None]
    for start in range(0, len(searched) - GROUP + 1, GROUP):
        lengths = [len(t.reports) for t in searched[start : start + GROUP]]
        assert sorted(lengths) == [1] * 6 + [2] * 2 + [3]
    for trial in trials:
        assert trial.state in {"complete", "stopped", "rejected"}
        assert [r.fidelity for r in trial.reports] == [*THREE_RUNGS[: len(trial.reports)]]
        assert trial.state != "complete" or len(trial.reports) == len(THREE_RUNGS)
    assert not list(folder.rglob(PAUSED))


def outcome(trials):
    """What must not depend on the engine."""
    return [(t.number, t.state, t.config.key, dict(t.values), len(t.reports)) for t in trials]


def check_runs_to_the_end(engine, folder):
    with make_study(folder) as study:
        engine.run(study, Curves, make_halving())
        trials = study.trials()
        assert study.n_left == 0
    assert sum(t.state in {"complete", "stopped", "failed"} for t in trials) == 10
    assert {"complete", "stopped"} <= {t.state for t in trials}
    assert trials[0].baseline == "head-only"
    assert trials[0].state == "complete"
    keys = [t.config.key for t in trials if t.state != "rejected"]
    assert len(keys) == len(set(keys))
    for trial in trials:
        if trial.state == "complete":
            assert trial.values["trainable_params"] == params(trial.config)
            assert [r.fidelity for r in trial.reports] == list(RUNGS)
        if trial.state == "stopped":
            assert [r.fidelity for r in trial.reports] == [1.0]
    return outcome(trials)


def check_trials_wait_for_their_group(engine, folder):
    with make_study(folder, n_trials=1 + 2 * GROUP + 4, rungs=THREE_RUNGS) as study:
        engine.run(study, Curves, make_synchronous())
        trials = study.trials()
        assert study.n_left == 0
    check_groups(trials, folder)
    last = [t for t in trials if t.state != "rejected"][-4:]
    assert sorted(len(t.reports) for t in last) == [1, 1, 1, 3]


def check_failures_are_recorded(engine, folder):
    with make_study(folder) as study:
        engine.run(study, BrokenCurves, make_halving())
        trials = study.trials()
    failed = [t for t in trials if t.state == "failed"]
    assert failed
    assert all(t.error == "ValueError: adapters are out of stock" for t in failed)
    assert any(t.state == "complete" for t in trials)
    assert sum(t.state in {"complete", "stopped", "failed"} for t in trials) == 10


def check_continues(engine, folder):
    with make_study(folder, n_trials=4) as study:
        engine.run(study, Curves, make_halving())
        before = outcome(study.trials())
    with make_study(folder, n_trials=10) as study:
        engine.run(study, Curves, make_halving())
        after = outcome(study.trials())
    assert after[: len(before)] == before
    return after


def check_gives_up_where_everything_fails_alike(engine, folder):
    with make_study(folder, n_trials=50) as study:
        with pytest.raises(StudyError, match=r"failed alike: ValueError: data/train\.csv"):
            engine.run(study, Hopeless, make_halving())
        errors = [t.error for t in study.trials()]
    assert set(errors) == {"ValueError: data/train.csv"}
    assert 5 <= len(errors) < 5 + PACK


def check_one_cause_is_the_failure_of_all_members(engine, folder):
    with make_study(folder) as study:
        engine.run(study, Stumbling, make_halving())
        trials = study.trials()
    failed = [t for t in trials if t.state == "failed"]
    assert 1 <= len(failed) <= PACK
    for trial in failed:
        others = [str(t.number) for t in failed if t is not trial]
        beside = f" (beside {', '.join(others)})" if others else ""
        assert trial.error == f"MemoryError: out of memory{beside}"
    assert sum(t.state in {"complete", "stopped", "failed"} for t in trials) == 10


def check_obeys_what_people_want(engine, folder):
    """Trial 0 is the baseline; what pauses by hand does not hold up the run."""
    with make_study(folder, n_trials=6) as study:
        wanted = study.space.resolve({**study.space.draw(np.random.default_rng(7)).point})
        number = Queue(study.record).wanted(wanted)
        for trial, wish in ((2, "stop"), (3, "pause"), (4, "pause")):
            wishes.wish(study.record, trial, wish)
        engine.run(study, Curves, Never())
        first = study.trials()
    assert (first[2].state, first[2].reports) == ("stopped", ())
    assert [(t.state, len(t.reports)) for t in first[3:5]] == [("paused", 1)] * 2
    assert (first[number].state, first[number].config) == ("complete", wanted)
    with make_study(folder, n_trials=6) as study:
        assert [t.state for t in study.trials()[3:5]] == ["interrupted"] * 2
        engine.run(study, Curves, Never())
        assert [t.state for t in study.trials()[3:5]] == ["paused"] * 2
    with make_study(folder, n_trials=6) as study:
        wishes.wish(study.record, 3, "resume")
        wishes.wish(study.record, 4, "stop")
        engine.run(study, Curves, Never())
        last = study.trials()
    assert (last[3].state, [r.fidelity for r in last[3].reports]) == ("complete", list(RUNGS))
    assert (last[4].state, [r.fidelity for r in last[4].reports]) == ("stopped", [RUNGS[0]])
    assert sum(t.state in {"complete", "stopped"} for t in last) == 7


def check_nobody_waits_for_what_pauses_by_hand(engine, folder):
    with make_study(folder, n_trials=1 + GROUP, rungs=THREE_RUNGS) as study:
        for trial in (1, 4):
            wishes.wish(study.record, trial, "pause")
        engine.run(study, Curves, make_synchronous())
        states = [trial.state for trial in study.trials()]
    assert (states[1], states[4]) == ("paused", "paused")
    assert {*states} <= {"paused", "complete", "stopped", "rejected"}
    assert "complete" in states[1:]


def check_trains_what_a_search_proposes(engine, folder):
    """Both stand beside `n_trials`, and are trained once."""
    points = [{"0.lora.r@g1": r, "0.lora.r@g2": 2, "train.learning_rate": 1e-3} for r in (2, 8)]
    asked = {"proposers": ({"type": "chance", "points": points},)}
    for _ in range(2):
        with make_study(folder, n_trials=6, **asked) as study:
            engine.run(study, Searching, make_halving())
            trials = study.trials()
        (search,) = (trial for trial in trials if trial.proposer == "chance")
        assert (search.state, len(search.reports)) == ("stopped", 1)
        own = [trial for trial in trials if trial.is_own and trial.state != "rejected"]
        assert len(own) == 6 + len(points)
        theirs = [trial for trial in own if trial.origin == "chance"]
        assert [trial.config for trial in theirs] == [
            study.space.resolve(study.space.filled(point)) for point in points
        ]


CHECKS = (
    check_trains_what_a_search_proposes,
    check_obeys_what_people_want,
    check_nobody_waits_for_what_pauses_by_hand,
    check_runs_to_the_end,
    check_trials_wait_for_their_group,
    check_failures_are_recorded,
    check_continues,
    check_gives_up_where_everything_fails_alike,
    check_one_cause_is_the_failure_of_all_members,
)


STOPPERS = {
    "halving": (make_halving, RUNGS),
    "synchronous_halving": (make_synchronous, THREE_RUNGS),
}


CONTAINER = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
"""Lets a command run with processes of its own, on a host of the same name."""


def start(folder, engine="inline", url="", n_trials=12, stopper="halving", n_runs=1, within=()):
    """A process that runs the study of a folder, as soon as so many have entered it."""
    arguments = [engine, str(folder), url, str(n_trials), stopper, str(n_runs)]
    return subprocess.Popen(
        [*within, sys.executable, "-m", __spec__.name, *arguments], stderr=subprocess.DEVNULL
    )


def main(engine, folder, url, n_trials, stopper, n_runs):
    make, rungs = STOPPERS[stopper]
    with make_study(Path(folder), int(n_trials), url=url, rungs=rungs) as study:
        (Path(folder) / f"{uuid.uuid4()}.entered").touch()
        while len(list(Path(folder).glob("*.entered"))) < int(n_runs):
            time.sleep(0.05)
        ENGINES[engine]().run(study, SlowForEach, make())


if __name__ == "__main__":
    main(*sys.argv[1:])
