"""Runs the trials of a study on a Ray cluster; the only file that knows Ray."""

from __future__ import annotations

import logging
import os
import pickle
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import ray
from ray import tune
from ray.tune.search import Searcher
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from autopeft.core.errors import StudyError
from autopeft.engine.crew import Crew
from autopeft.engine.engine import Engine, MakeEvaluator, Watch
from autopeft.engine.packs import Change, Packs
from autopeft.engine.room import SHARES, Room
from autopeft.search.stopping import Stopper
from autopeft.study.study import Study
from autopeft.study.trial import Trial

_SETTINGS = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}


@dataclass(frozen=True)
class RayEngine(Engine):
    """Runs trials as actors that keep their evaluator from one trial to the next.

    A trial of Tune is a pack of the study's trials: one, or as many as a worker has room for.

    Attributes:
        cpu: cores of a worker.
        gpu: devices of a worker; fractions share a device. `auto` is the whole device for packs
            of several, else the share that a trial needs.
        concurrency: workers at a time; `auto` is as many as the cluster has room for.
        address: of a running cluster; None starts one on this machine.
        folder: for the files of Ray Tune.
        room: of a worker.
    """

    cpu: float = 1
    gpu: float | Literal["auto"] = 0
    concurrency: int | Literal["auto"] = "auto"
    address: str | None = None
    folder: str = "runs"
    room: Room = field(default_factory=Room)

    def run(
        self, study: Study, make: MakeEvaluator, stopper: Stopper, watch: Watch = lambda _: None
    ) -> None:
        """Runs the study to its end."""
        if not study.n_left:
            return
        with self._cluster():
            workers = self._workers()
            room = self._divided(study.n_left, workers)
            board = _board() if room.members > 1 else None
            packs = Packs(study, stopper, room, watch, partial(_tell, board))
            with redirect_stdout(sys.stderr), _interrupts(packs):  # Ray writes of dead workers
                self._tuner(packs, worker(make, board), workers).fit()
            if packs.error is not None:
                raise packs.error

    @contextmanager
    def _cluster(self) -> Iterator[None]:
        """Joins the cluster, or starts one for as long as it is needed."""
        started = self._connect()
        try:
            yield
        finally:
            if started:
                ray.shutdown()

    def _connect(self) -> bool:
        """Joins the cluster; whether this call did."""
        os.environ.update({key: os.environ.get(key, value) for key, value in _SETTINGS.items()})
        if ray.is_initialized():
            return False
        self._check_address()
        try:
            ray.init(
                address=self.address or "local",  # None would join whichever runs here
                include_dashboard=None if self.address else False,
                logging_level=logging.ERROR,
                log_to_driver=False,
            )
        except ConnectionError as error:
            raise StudyError(
                f"no Ray cluster answers at {self.address!r}", "engine.address"
            ) from error
        return True

    def _check_address(self) -> None:
        """Asks before Ray does, which waits for minutes."""
        if self.address and self.address.startswith("ray://"):
            reason = "is an address for clients; run on a machine of the cluster and give host:port"
            raise StudyError(f"{self.address!r} {reason}", "engine.address")
        if self.address is None or "://" in self.address or ":" not in self.address:
            return
        host, port = self.address.rsplit(":", 1)
        try:
            socket.create_connection((host, int(port)), timeout=10).close()
        except (OSError, ValueError, OverflowError) as error:
            raise StudyError(
                f"no Ray cluster answers at {self.address!r}", "engine.address"
            ) from error

    def _workers(self) -> int:
        """How many workers there are at a time.

        Raises:
            StudyError: no node has room for one.
        """
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        most = sum(map(self._workers_on, nodes))
        if most < 1:
            raise StudyError(
                f"no node has room for a trial with {self.cpu:g} CPU and {self._least_gpu:g} GPU",
                "engine.resources",
            )
        return most if self.concurrency == "auto" else self.concurrency

    def _workers_on(self, resources: Mapping[str, float]) -> int:
        """How many workers a node takes; a share of a device lies on one device."""
        most, least = resources.get("CPU", 0.0) / self.cpu, self._least_gpu
        if least:
            devices = resources.get("GPU", 0.0)
            shares = int(1 / least + 1e-9) if least < 1 else 1 / least
            most = min(most, devices * shares)
        return int(most + 1e-9)

    @property
    def _least_gpu(self) -> float:
        """The smallest part of a device that a worker asks for."""
        if self.gpu != "auto":
            return self.gpu
        return 1.0 if self.room.members > 1 else 1 / SHARES

    def _gpu_for(self, trials: Sequence[Trial]) -> float:
        """Devices of the worker that starts with these trials."""
        if self.gpu != "auto":
            return self.gpu
        return 1.0 if self.room.members > 1 else self.room.share_for(trials[0].config)

    def _divided(self, n_trials: int, workers: int) -> Room:
        """The room of a worker where several divide the trials that are left."""
        return replace(self.room, members=min(self.room.members, -(-n_trials // workers)))

    def _request(self, config: Mapping[str, Any]) -> tune.PlacementGroupFactory:
        """What Tune reserves for a pack."""
        return tune.PlacementGroupFactory([{"CPU": self.cpu, "GPU": config["gpu"]}])

    def _tuner(self, packs: Packs, trainable: type[tune.Trainable], workers: int) -> tune.Tuner:
        for name in ("ray.tune", "ray.train", "ray.air"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        return tune.Tuner(
            tune.with_resources(trainable, self._request),
            tune_config=tune.TuneConfig(
                search_alg=_Proposals(packs, self._gpu_for),
                num_samples=-1,
                max_concurrent_trials=workers,
                reuse_actors=True,
                trial_name_creator=lambda trial: f"trial_{trial.trial_id}",
                trial_dirname_creator=lambda trial: f"trial_{trial.trial_id}",
            ),
            run_config=tune.RunConfig(
                name="ray",
                storage_path=str(Path(self.folder).resolve()),
                stop=_Judgement(packs),
                verbose=0,
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            ),
        )


@contextmanager
def _interrupts(packs: Packs) -> Iterator[None]:
    """Lets the first Ctrl-C end the run between two events, not in the middle of Ray.

    A second one is what it always is. Only the main thread can listen.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: Any) -> None:
        packs.error = packs.error or KeyboardInterrupt()
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class _Proposals(Searcher):
    """The study as a searcher of Tune, which is asked for packs."""

    def __init__(self, packs: Packs, gpu_for: Callable[[Sequence[Trial]], float]) -> None:
        super().__init__()
        self.packs, self.gpu_for = packs, gpu_for

    def suggest(self, trial_id: str) -> Any:
        trials = self.packs.found(trial_id)
        if not trials:
            return Searcher.FINISHED if self.packs.are_over else None
        founding = pickle.dumps(Change(joining=tuple(trials)))
        return {"pack": trial_id, "founding": founding, "gpu": self.gpu_for(trials)}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        self.packs.end(trial_id)

    def save(self, checkpoint_path: str) -> None:
        """Keeps nothing; see `Packs.__getstate__`."""

    def restore(self, checkpoint_path: str) -> None:
        """Restores nothing; see `Packs.__getstate__`."""


class _Judgement(tune.Stopper):
    """The study's stopper as a stopper of Tune, which sees every result first."""

    def __init__(self, packs: Packs) -> None:
        self.packs = packs

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return not self.packs.record(trial_id, pickle.loads(result["events"]))

    def stop_all(self) -> bool:
        return self.packs.error is not None


class _Board:
    """Where the driver leaves notes for packs; Tune itself tells a running trial nothing."""

    def __init__(self) -> None:
        self._changes: dict[str, list[Change]] = {}

    def put(self, pack: str, change: Change) -> None:
        self._changes.setdefault(pack, []).append(change)

    def take(self, pack: str) -> list[Change]:
        return self._changes.pop(pack, [])


def _board() -> Any:
    """An actor on the driver's node, which lives as long as the driver."""
    here = NodeAffinitySchedulingStrategy(_node(), soft=False)
    return ray.remote(num_cpus=0, scheduling_strategy=here)(_Board).remote()


def _tell(board: Any, pack: str, change: Change) -> None:
    """Returns once the note is there, so that a worker that goes on finds it."""
    ray.get(board.put.remote(pack, change))


def _node() -> str:
    return str(ray.get_runtime_context().get_node_id())


def worker(make: MakeEvaluator, board: Any) -> type[tune.Trainable]:
    """The actor that trains packs; its evaluator is built once.

    What builds it comes to each node once and is unpacked there, so that what a node lacks is an
    error of the trial. Relative paths mean what they mean to the driver, where its folder exists.
    """

    class Worker(tune.Trainable):
        """Trains one pack after another."""

        def setup(self, config: dict[str, Any], home: str, folder: str, packed: bytes) -> None:
            place = _settle(home, folder)
            self.crew = Crew(lambda: ray.cloudpickle.loads(packed)(), place)
            self._found(config)

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            self.cleanup()
            self._found(new_config)
            return True

        def step(self) -> dict[str, Any]:
            for change in ray.get(board.take.remote(self.pack)) if board else ():
                self._apply(change)
            return {"events": pickle.dumps(self.crew.advance())}

        def cleanup(self) -> None:
            self.crew.disband()

        def _found(self, config: dict[str, Any]) -> None:
            self.pack = config["pack"]
            self._apply(pickle.loads(config["founding"]))

        def _apply(self, change: Change) -> None:
            for member in change.leaving:
                self.crew.leave(member)
            for trial in change.joining:
                self.crew.join(trial)

    return tune.with_parameters(Worker, home=_node(), folder=str(Path.cwd()), packed=_packed(make))


def _packed(value: object) -> bytes:
    return bytes(ray.cloudpickle.dumps(value))


def _settle(home: str, folder: str) -> str:
    """Works where the driver does; what errors are to say of this node, nothing of the driver's."""
    return "" if _node() == home else _elsewhere(folder)


def _elsewhere(folder: str) -> str:
    """Goes where the driver works, if this node has it; what errors say of the node."""
    where = f" (on node {ray.util.get_node_ip_address()}"
    try:
        os.chdir(folder)
    except OSError:
        return f"{where}, which lacks the folder {folder} that relative paths start from)"
    return f"{where})"
