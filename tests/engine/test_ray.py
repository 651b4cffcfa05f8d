"""What only Ray can do: lose a worker, span nodes, fail to build an evaluator."""

from functools import partial

import psutil
import pytest
import ray

import autopeft
from autopeft.core.errors import StudyError
from autopeft.engine.ray import RayEngine
from tests import tiny
from tests.contracts import engine as kit
from tests.contracts.curves import Curves
from tests.engine.evaluators import Hungry, Mortal, nowhere


def test_a_study_of_predicted_memory(cluster, tmp_path):
    """What it predicts memory with stays where the study is."""
    document = {**tiny.study(tmp_path), "name": "predicted", "limits": {"peak_memory": "2GB"}}
    document["engine"] = {"type": "ray", "address": cluster.address}
    document["search"]["n_trials"] = 2
    outcome = autopeft.run(document)
    assert [trial.state for trial in outcome.trials] == ["complete"] * 2
    assert all(trial.values["peak_memory"] > 10**6 for trial in outcome.trials)
    ray.shutdown()


@pytest.fixture
def two_nodes(cluster):
    node = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    yield cluster
    ray.shutdown()
    cluster.remove_node(node)


def lost_in(study):
    """What the trials that have lost a worker remember of it, by number."""
    trials = study.record.get_trials(deepcopy=False)
    return {t.number: t.user_attrs["lost"] for t in trials if "lost" in t.user_attrs}


def test_two_nodes_and_a_worker_that_dies(two_nodes, tmp_path, capfd):
    places = tmp_path / "nodes"
    places.mkdir()
    capfd.readouterr()
    engine = RayEngine(address=two_nodes.address, folder=str(tmp_path))
    with kit.make_study(tmp_path, n_trials=12) as study:
        engine.run(study, partial(Mortal, places), kit.make_halving())
        trials, lost = study.trials(), lost_in(study)
    assert not ray.is_initialized()
    with (
        kit.make_study(tmp_path, n_trials=20, name="other") as study,
        pytest.raises(
            StudyError, match=r"a worker can train nothing: FileNotFoundError: the backbone"
        ),
    ):
        engine.run(study, nowhere, kit.make_halving())
    assert len(list(places.iterdir())) == 2
    assert lost == {3: "the worker process died"}
    assert sum(t.state in {"complete", "stopped"} for t in trials) == 12
    assert {t.state for t in trials} <= {"complete", "stopped", "rejected"}
    out, err = capfd.readouterr()
    assert out == ""
    assert all("A worker died" in line for line in err.splitlines())
    files = [path for path in (tmp_path / "ray").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 5e6


def test_a_worker_that_ray_kills_for_memory(tmp_path, monkeypatch):
    """Its trial is too large the second time; Tune ends with it, the study goes on.

    Whatever else takes memory here may have more workers die.
    """
    memory = psutil.virtual_memory()
    share = (memory.total - memory.available + 3e9) / memory.total
    monkeypatch.setenv("RAY_memory_usage_threshold", f"{share:.3f}")
    with kit.make_study(tmp_path, n_trials=6) as study:
        RayEngine(folder=str(tmp_path)).run(study, Hungry, kit.make_halving())
        trials, lost = study.trials(), lost_in(study)
    assert lost[3] == "the worker process was killed, its node is out of memory"
    assert trials[3].state == "failed"
    assert trials[3].error.startswith(f"{lost[3]} (batches of 16 on cpu: ")
    assert sum(t.state in {"complete", "stopped", "failed"} for t in trials) == 6
    assert {t.state for t in trials} <= {"complete", "stopped", "failed", "rejected"}


def test_what_the_cluster_has_not(cluster, tmp_path):
    with kit.make_study(tmp_path) as study:
        engine = RayEngine(address="127.0.0.1:1", folder=str(tmp_path))
        with pytest.raises(StudyError, match="no Ray cluster answers"):
            engine.run(study, Curves, kit.make_halving())
        with pytest.raises(StudyError, match="is an address for clients"):
            RayEngine(address="ray://127.0.0.1:1").run(study, Curves, kit.make_halving())
        with pytest.raises(StudyError, match="no node has room"):
            RayEngine(gpu=1000, address=cluster.address).run(study, Curves, kit.make_halving())
