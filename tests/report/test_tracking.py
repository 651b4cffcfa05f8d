"""Trackers of experiments are told of every trial, by their own libraries."""

import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from autopeft.core.errors import StudyError
from autopeft.engine.inline import Inline
from autopeft.engine.room import Room
from autopeft.report import trackers
from autopeft.report.tracking import check_trackers, tracking
from autopeft.search.stopping import Never
from tests.contracts import engine as kit
from tests.contracts.curves import BrokenCurves, Curves

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    """Libraries write below the folder of the test and to nobody else."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))


def run(folder, names, make=Curves, n_trials=4, members=1):
    """The trials of a study."""
    with kit.make_study(folder, n_trials=n_trials) as study, tracking(names, "toy", folder) as told:
        Inline(Room(members=members)).run(study, make, Never(), told)
        return study.trials()


def test_tensorboard_shows_curves_and_values(tmp_path):
    event_accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator"
    )
    trials = run(tmp_path, ["tensorboard"])
    for trial in trials:
        (folder,) = (tmp_path / "tensorboard").glob(f"trial_{trial.number}_*")
        events = event_accumulator.EventAccumulator(str(folder)).Reload()
        curve = events.Scalars("accuracy")
        assert [e.step for e in curve] == [r.step for r in trial.reports]
        assert curve[-1].value == pytest.approx(trial.values["accuracy"])
        values = event_accumulator.EventAccumulator(str(folder / "values")).Reload()
        assert (
            values.Scalars("hparam/trainable_params")[-1].value == trial.values["trainable_params"]
        )


def test_mlflow_has_a_run_for_each_trial_that_goes_on_as_the_same(tmp_path):
    mlflow = pytest.importorskip("mlflow")
    run(tmp_path, ["mlflow"], n_trials=3)
    trials = run(tmp_path, ["mlflow"], BrokenCurves, n_trials=12)
    client = mlflow.MlflowClient()
    (experiment,) = client.search_experiments(filter_string="name = 'toy'")
    runs = {r.info.run_name: r for r in client.search_runs([experiment.experiment_id])}
    assert len(runs) == len(trials)
    failed = [trial for trial in trials if trial.state == "failed"]
    assert failed
    for trial in trials:
        told = runs[f"trial {trial.number}"]
        assert told.data.tags["state"] == trial.state
        assert told.info.status == ("FAILED" if trial in failed else "FINISHED")
        curve = client.get_metric_history(told.info.run_id, "validation_loss")
        assert [m.step for m in curve] == [r.step for r in trial.reports]
        assert float(told.data.params["learning_rate"]) == dict(trial.config.train)["learning_rate"]
        if trial.values:
            assert told.data.metrics["trainable_params"] == trial.values["trainable_params"]


AT_ONCE = """
import json, sys
from tests.report.test_tracking import run
trials = run(sys.argv[1], [sys.argv[2]], members=3)
print(json.dumps([[r.metrics["validation_loss"] for r in trial.reports] for trial in trials]))
"""


def run_at_once(folder, name):
    """The curves of trials, three of which are trained at a time, by a process of their own."""
    command = [sys.executable, "-c", AT_ONCE, str(folder), name, "postgresql://me:SECRET@host/db"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_trackio_shows_trials_that_are_trained_at_the_same_time(tmp_path):
    pytest.importorskip("trackio")
    curves = run_at_once(tmp_path, "trackio")
    with closing(sqlite3.connect(tmp_path / "trackio" / "toy.db")) as database:
        rows = database.execute("select run_name, metrics from metrics order by id").fetchall()
    for number, curve in enumerate(curves):
        told = [
            json.loads(metrics) for name, metrics in rows if name.startswith(f"trial {number} ")
        ]
        assert [m["validation_loss"] for m in told if "validation_loss" in m] == curve
        assert told[-1]["state"] == "complete"


def test_wandb_shows_trials_that_are_trained_at_the_same_time(tmp_path):
    """What is written without a network, to be sent later."""
    pytest.importorskip("wandb")
    curves = run_at_once(tmp_path, "wandb")
    logs = list((tmp_path / "wandb").glob("offline-run-*/run-*.wandb"))
    assert len(logs) == len(curves) == 4
    text = b"".join(log.read_bytes() for log in logs)
    written = [path for path in (tmp_path / "wandb").rglob("*") if path.is_file()]
    assert not any(b"SECRET" in path.read_bytes() for path in written)
    for number, curve in enumerate(curves):
        assert f"trial {number}".encode() in text
        for value in curve:
            assert str(value).encode() in text


def test_a_tracker_that_fails_is_given_up_and_the_study_goes_on(tmp_path, monkeypatch, caplog):
    class Broken(trackers.TensorBoard):
        def log(self, metrics, step):
            raise ConnectionError("nobody answers")

    monkeypatch.setitem(trackers.TRACKERS, "tensorboard", ("tensorboardX", Broken))
    trials = run(tmp_path, ["tensorboard"])
    assert [trial.state for trial in trials] == ["complete"] * 4
    (told,) = [r.getMessage() for r in caplog.records if "told no more" in r.getMessage()]
    assert told == "tensorboard is told no more: ConnectionError: nobody answers"


def test_what_is_interrupted_is_told_so_and_goes_on_later(tmp_path):
    mlflow = pytest.importorskip("mlflow")

    class Tired(Curves):
        def advance(self):
            if 2 in self.members and len(self.members[2][1]) == 1:
                raise KeyboardInterrupt
            return super().advance()

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, ["mlflow"], Tired)
    client = mlflow.MlflowClient()
    (experiment,) = client.search_experiments(filter_string="name = 'toy'")

    def told():
        runs = client.search_runs([experiment.experiment_id])
        (this,) = [r for r in runs if r.info.run_name == "trial 2"]
        return this

    assert (told().info.status, told().data.tags["state"]) == ("KILLED", "interrupted")
    trials = run(tmp_path, ["mlflow"])
    assert (told().info.status, told().data.tags["state"]) == ("FINISHED", "complete")
    curve = client.get_metric_history(told().info.run_id, "validation_loss")
    assert [m.step for m in curve] == [r.step for r in trials[2].reports]


def test_what_is_not_there_is_told_before_anything_is_trained(monkeypatch):
    with pytest.raises(StudyError, match=r"report_to: unknown tracker 'wandbb'.*did you mean"):
        check_trackers(["wandbb"])
    monkeypatch.setitem(trackers.TRACKERS, "wandb", ("no_such_module", trackers.WandB))
    told = r"report_to: wandb needs no_such_module: pip install 'autopeft\[track\]'"
    with pytest.raises(StudyError, match=told):
        check_trackers(["wandb"])
