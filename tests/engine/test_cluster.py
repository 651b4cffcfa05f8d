"""A cluster of several machines, each with a GPU that is declared, not there."""

import os
import shutil
import threading
from functools import partial
from pathlib import Path

import pytest
import ray

from autopeft.core.errors import StudyError
from autopeft.engine.ray import RayEngine
from autopeft.engine.room import Room
from tests.contracts import engine as kit
from tests.engine.evaluators import (
    MEMORY,
    Patient,
    Reader,
    Sociable,
    need,
    notes_in,
    wait_for_work_on,
)


@pytest.fixture(scope="module", autouse=True)
def _machines(cluster):
    nodes = [cluster.add_node(num_cpus=2, num_gpus=1) for _ in range(2)]
    cluster.wait_for_nodes()
    yield
    for node in nodes:
        cluster.remove_node(node)


def run(cluster, folder, make, n_trials=12, watch=lambda _: None, gpu="auto", **settings):
    engine = RayEngine(address=cluster.address, folder=str(folder), gpu=gpu, **settings)
    with kit.make_study(folder, n_trials) as study:
        engine.run(study, make, kit.make_halving(), watch)
        lost = [t for t in study.record.get_trials(deepcopy=False) if "lost" in t.user_attrs]
        return study.trials(), lost


def ended(trials):
    return [t for t in trials if t.state in {"complete", "stopped"}]


def test_trials_share_devices_as_far_as_they_need_them(cluster, tmp_path):
    room = Room(memory=MEMORY, need=need)
    trials, _ = run(cluster, tmp_path, partial(Sociable, tmp_path, 3), n_trials=8, room=room)
    assert len(ended(trials)) == 8
    notes = notes_in(tmp_path)
    assert len({note["node"] for note in notes}) == 2
    assert {note["devices"] for note in notes} == {"0"}
    together = []
    for node in {note["node"] for note in notes}:
        here = [note for note in notes if note["node"] == node]
        for moment in (note["span"][0] for note in here):
            at_once = [n["share"] for n in here if n["span"][0] <= moment < n["span"][1]]
            assert sum(at_once) <= 1 + 1e-9
            together.append(len(at_once))
    assert max(together) > 1


def test_packs_fill_whole_devices_of_all_nodes(cluster, tmp_path):
    room = Room(4, 3 * MEMORY, need=need)
    trials, _ = run(cluster, tmp_path, partial(Sociable, tmp_path, 2), room=room)
    assert len(ended(trials)) == 12
    notes = notes_in(tmp_path)
    assert len({note["node"] for note in notes}) == 2
    assert len(list(tmp_path.glob("*.jsonl"))) == 2
    assert max(len(note["members"]) for note in notes) in (3, 4)
    members = {n: note["node"] for note in notes for n in note["members"]}
    assert all({members[n]} == {note["node"]} for note in notes for n in note["members"])


def test_relative_paths_are_those_of_the_driver(cluster, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("data.csv").write_text("text,label")
    assert len(ended(run(cluster, tmp_path, Reader)[0])) == 12


def test_what_a_node_lacks_is_told_with_its_name(cluster, tmp_path, monkeypatch):
    folder = tmp_path / "of the driver"
    folder.mkdir()
    monkeypatch.chdir(folder)
    where = rf"\(on node {ray.util.get_node_ip_address()}, which lacks the folder {folder} that"
    expected = rf"a worker can train nothing: FileNotFoundError: .*'data\.csv' {where}"

    def watch(study):
        """Takes the folder away while the workers start."""
        shutil.rmtree(folder, ignore_errors=True)
        if any(t.state == "interrupted" for t in study.trials()):
            folder.mkdir()
            os.chdir(folder)

    with pytest.raises(StudyError, match=expected):
        run(cluster, tmp_path, Reader, watch=watch)


def test_a_node_that_dies(cluster, tmp_path):
    node = cluster.add_node(num_cpus=1, num_gpus=1)
    cluster.wait_for_nodes()

    def kill():
        wait_for_work_on(node.node_id, tmp_path)
        cluster.remove_node(node, allow_graceful=False)

    killer = threading.Thread(target=kill)
    killer.start()
    make, room = partial(Patient, tmp_path, node.node_id), Room(4, 3 * MEMORY, need=need)
    trials, lost = run(cluster, tmp_path, make, n_trials=14, gpu=1, room=room)
    killer.join()
    assert 1 <= len(lost) <= 4
    assert len(ended(trials)) == 14
    assert {t.state for t in trials} <= {"complete", "stopped", "rejected"}
