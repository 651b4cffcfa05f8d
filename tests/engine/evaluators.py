"""What trains on the nodes of Ray in tests; nothing here is slow to import."""

import json
import os
import signal
import time
from itertools import chain
from pathlib import Path

import ray

from autopeft.engine.room import Need, Room
from tests.contracts.curves import Curves, Slow, params

MEMORY = 80e9


def need(config):
    """From a twentieth of a device to all of it."""
    return Need(member=int(params(config) / 960 * MEMORY))


def wait_until(condition, seconds=90):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


class Placed(Slow):
    """Notes where and when it trains whom."""

    def __init__(self, folder):
        super().__init__()
        context = ray.get_runtime_context()
        self.node, self.devices = context.get_node_id(), os.environ["CUDA_VISIBLE_DEVICES"]
        self.file = Path(folder) / f"{os.getpid()}.jsonl"

    def advance(self):
        start, configs = time.time(), {n: config for n, (config, _) in self.members.items()}
        events = super().advance()
        note = {
            "node": self.node,
            "devices": self.devices,
            "members": list(configs),
            "share": sum(Room(memory=MEMORY, need=need).share_for(c) for c in configs.values()),
            "span": [start, time.time()],
        }
        with self.file.open("a") as file:
            file.write(json.dumps(note) + "\n")
        return events


class Sociable(Placed):
    """Begins when so many workers have started."""

    def __init__(self, folder, n_workers):
        super().__init__(folder)
        self.file.touch()
        wait_until(lambda: len(list(folder.glob("*.jsonl"))) >= n_workers)


class Reader(Curves):
    """Looks for its data by a relative path."""

    def __init__(self):
        super().__init__()
        self.text = Path("data.csv").read_text()


def notes_in(folder):
    lines = chain.from_iterable(f.read_text().splitlines() for f in folder.glob("*.jsonl"))
    return [json.loads(line) for line in lines]


def wait_for_work_on(node, folder):
    wait_until(lambda: any(note["node"] == node for note in notes_in(folder)))


class Patient(Placed):
    """Leaves some work to another node, where it takes longer than the node lives."""

    def __init__(self, folder, node):
        super().__init__(folder)
        self.dies = self.node == node
        if not self.dies:
            wait_for_work_on(node, folder)

    def advance(self):
        if self.dies and self.file.exists():
            time.sleep(60)
        return super().advance()


class Mortal(Slow):
    """Its process is killed in the third trial, once; begins when another node has begun, too."""

    def __init__(self, folder):
        super().__init__()
        self.folder = folder
        (folder / ray.get_runtime_context().get_node_id()).touch()
        wait_until(lambda: len(list(folder.iterdir())) == 2)

    def advance(self):
        mark = self.folder.parent / "died"
        if 3 in self.members and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().advance()


class Hungry(Slow):
    """Takes memory in the third trial until its process is killed for it."""

    def __init__(self):
        super().__init__()
        self.held = []

    def advance(self):
        if 3 in self.members:
            while len(self.held) < 70:
                self.held.append(bytearray(b"1" * 10**8))
                time.sleep(0.02)
            time.sleep(60)
        return super().advance()


def nowhere():
    raise FileNotFoundError("the backbone is not on this node")
