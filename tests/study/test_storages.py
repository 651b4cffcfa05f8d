"""One record in every storage, open to every tool of Optuna."""

import json
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

import optuna
import pytest

from autopeft.core.errors import StudyError
from autopeft.study.record import VERSION, find_record, read_trials
from benchmarks.faults.postgresql import PostgreSQL, free_port, tool
from tests.contracts import engine as kit
from tests.contracts.curves import Curves, params


@pytest.fixture(scope="module")
def postgres():
    if tool("initdb") is None:
        pytest.skip("PostgreSQL is not installed")
    pytest.importorskip("psycopg2")
    with tempfile.TemporaryDirectory() as folder:
        server = PostgreSQL(Path(folder))
        server.start()
        yield server
        server.stop()


def check_kept(url, name, trials):
    """What any Optuna tool reads is what the study has recorded."""
    study = optuna.load_study(study_name=name, storage=url)
    assert study.metric_names == [o.name for o in kit.OBJECTIVES]
    complete = {t.number: t for t in trials if t.state == "complete"}
    assert complete
    for trial in study.get_trials(states=(optuna.trial.TrialState.COMPLETE,)):
        assert trial.values == list(complete.pop(trial.number).values.values())
        assert trial.params or trial.user_attrs["baseline"]
    assert not complete
    assert study.best_trials
    assert kit.outcome(read_trials(study, study.metric_names)) == kit.outcome(trials)


RECORDS = Path(__file__).parent / "records"


@pytest.mark.parametrize("version", range(1, VERSION + 1))
def test_a_record_of_every_version_goes_on(version, tmp_path):
    with sqlite3.connect(tmp_path / "study.db") as database:
        database.executescript((RECORDS / f"version-{version}.sql").read_text(encoding="utf-8"))
    with kit.make_study(tmp_path, n_trials=8, sampler="random") as study:
        before = study.trials()
        kit.ENGINES["inline"]().run(study, Curves, kit.make_halving())
        after = study.trials()
    assert [(t.state, len(t.reports)) for t in before] == [
        ("complete", 2),
        ("complete", 2),
        ("stopped", 1),
        ("stopped", 1),
        ("complete", 2),
    ]
    assert before[1].values == {"accuracy": 0.884584512135105, "trainable_params": 520.0}
    assert before[0].baseline == "head-only"
    assert [params(t.config) for t in before] == [t.known["trainable_params"] for t in before]
    assert after[:5] == before
    assert sum(t.state != "rejected" for t in after) == 8


def test_postgresql_keeps_the_same_record(postgres, tmp_path):
    outcomes = []
    for url in (postgres.url, f"sqlite:///{tmp_path}/new/study.db"):
        with kit.make_study(tmp_path, name="same", url=url) as study:
            kit.ENGINES["inline"]().run(study, Curves, kit.make_halving())
            trials = study.trials()
        check_kept(url, "same", trials)
        outcomes.append(kit.outcome(trials))
    assert outcomes[0] == outcomes[1]


def test_runs_at_once_share_postgresql(postgres, tmp_path):
    processes = [kit.start(tmp_path, url=postgres.url) for _ in range(2)]
    assert [process.wait(120) for process in processes] == [0, 0]
    trials = read_trials(find_record(postgres.url, "toy"), [o.name for o in kit.OBJECTIVES])
    trained = [t.config.key for t in trials if t.state in {"complete", "stopped"}]
    assert len(trained) == len(set(trained)) == 12
    assert not any(t.state in {"running", "waiting", "failed"} for t in trials)
    check_kept(postgres.url, "toy", trials)


def test_a_server_that_is_away_during_a_trial(postgres, tmp_path, caplog):
    class Restarting(Curves):
        def join(self, member, config, order):
            if order.folder.endswith("/1"):
                postgres.stop("immediate")
                threading.Timer(3, postgres.start).start()
            super().join(member, config, order)

    with kit.make_study(tmp_path, n_trials=3, name="again", url=postgres.url) as study:
        kit.ENGINES["inline"]().run(study, Restarting, kit.make_halving())
        assert [t.error for t in study.trials()] == [None] * 3
    assert "the storage does not answer" in caplog.text


def test_a_storage_that_is_lost_during_a_trial(tmp_path):
    class Losing(Curves):
        def join(self, member, config, order):
            if order.folder.endswith("/1"):
                (tmp_path / "study.db").unlink()
            super().join(member, config, order)

    with (
        pytest.raises(StudyError, match="storage: the record of the study is out of reach"),
        kit.make_study(tmp_path) as study,
    ):
        kit.ENGINES["inline"]().run(study, Losing, kit.make_halving())


def test_a_study_that_is_deleted_during_a_trial(tmp_path):
    class Deleting(Curves):
        def join(self, member, config, order):
            if order.folder.endswith("/1"):
                optuna.delete_study(study_name="toy", storage=f"sqlite:///{tmp_path}/study.db")
            super().join(member, config, order)

    with (
        pytest.raises(StudyError, match="storage: the record of the study is out of reach"),
        kit.make_study(tmp_path) as study,
    ):
        kit.ENGINES["inline"]().run(study, Deleting, kit.make_halving())


def test_the_dashboard_shows_the_study(tmp_path):
    pytest.importorskip("optuna_dashboard")
    with kit.make_study(tmp_path, n_trials=4) as study:
        kit.ENGINES["inline"]().run(study, Curves, kit.make_halving())
    port = free_port()
    command = [Path(sys.executable).parent / "optuna-dashboard", f"sqlite:///{tmp_path}/study.db"]
    dashboard = subprocess.Popen(
        [*command, "--host", "127.0.0.1", "--port", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        shown = answer(f"http://127.0.0.1:{port}/api/studies")["study_summaries"]
        assert [study["study_name"] for study in shown] == ["toy"]
        detail = answer(f"http://127.0.0.1:{port}/api/studies/{shown[0]['study_id']}")
        assert detail["objective_names"] == [o.name for o in kit.OBJECTIVES]
        assert sum(trial["state"] == "Complete" for trial in detail["trials"]) >= 1
    finally:
        dashboard.terminate()
        dashboard.wait(20)


def answer(url, seconds=40):
    deadline = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(url) as response:
                return json.load(response)
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
