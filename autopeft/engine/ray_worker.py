"""What runs on the nodes of a Ray cluster: imports are few, so that it starts at once."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from autopeft.core.report import Failure, Notice, described
from autopeft.engine.evaluator import Evaluator, MakeEvaluator
from autopeft.study.trial import Trial


@dataclass(frozen=True)
class Change:
    """What a worker is told about its pack before it trains on.

    Attributes:
        leaving: numbers of trials that end.
        joining: trials that start.
    """

    leaving: tuple[int, ...] = ()
    joining: tuple[Trial, ...] = ()


class Board:
    """Where the driver leaves notes for packs; Tune itself tells a running trial nothing."""

    def __init__(self) -> None:
        self._changes: dict[str, list[Change]] = {}

    def put(self, pack: str, change: Change) -> None:
        self._changes.setdefault(pack, []).append(change)

    def take(self, pack: str) -> list[Change]:
        return self._changes.pop(pack, [])


@contextmanager
def open_board() -> Iterator[Any]:
    """A board that is an actor on the driver's node, for as long as a run."""
    here = NodeAffinitySchedulingStrategy(node(), soft=False)
    board = ray.remote(num_cpus=0, scheduling_strategy=here)(Board).remote()
    try:
        yield board
    finally:
        ray.kill(board)


def node() -> str:
    """The node of this process."""
    return str(ray.get_runtime_context().get_node_id())


class Worker(tune.Trainable):
    """The actor that trains one pack after another; its evaluator is built once.

    What builds it comes to each node once and is unpacked there, so that what a node lacks is an
    error of the trial. Relative paths mean what they mean to the driver, where its folder exists.
    """

    def setup(
        self, config: dict[str, Any], home: str, folder: str, packed: bytes, board: Any
    ) -> None:
        self.packed, self.where, self.board = packed, _settle(home, folder), board
        self.evaluator: Evaluator | None = None
        self.members: list[int] = []
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Begins another pack, which the last one leaves to itself."""
        self.worker = new_config["worker"]
        leaving, self.members = Change(leaving=tuple(self.members)), []
        self.changes = [leaving, pickle.loads(new_config["change"])]
        return True

    def step(self) -> dict[str, Any]:
        changes, self.changes = self.changes, []
        if self.board:
            changes += ray.get(self.board.take.remote(self.worker))
        self.members += [trial.number for change in changes for trial in change.joining]
        events = [self._located(event) for event in self._advance(changes)]
        return {"events": pickle.dumps(events)}

    def _advance(self, changes: Sequence[Change]) -> Sequence[Notice]:
        try:
            self.evaluator = self.evaluator or ray.cloudpickle.loads(self.packed)()
        except Exception as error:
            reason = described(error)
            return [Failure(member, reason, fault="worker") for member in self.members]
        for change in changes:
            for member in change.leaving:
                self.evaluator.leave(member)
            for trial in change.joining:
                self.evaluator.join(trial.number, trial.config, trial.order)
        return self.evaluator.advance()

    def _located(self, event: Notice) -> Notice:
        return replace(event, where=self.where) if isinstance(event, Failure) else event


def worker_of(make: MakeEvaluator, board: Any) -> type[tune.Trainable]:
    """What Tune starts on the nodes."""
    packed = bytes(ray.cloudpickle.dumps(make))
    folder = str(Path.cwd())
    return tune.with_parameters(Worker, home=node(), folder=folder, packed=packed, board=board)


def _settle(home: str, folder: str) -> str:
    """Goes where the driver works; what errors are to say of this node, nothing of the driver's."""
    if node() == home:
        return ""
    where = f" (on node {ray.util.get_node_ip_address()}"
    try:
        os.chdir(folder)
    except OSError:
        return f"{where}, which lacks the folder {folder} that relative paths start from)"
    return f"{where})"
