"""Runs the trials of a study on a Ray cluster."""

from __future__ import annotations

import logging
import os
import pickle
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any, Literal, TypeVar

import ray
from ray import tune
from ray.tune.search import Searcher

from autopeft.core.errors import StudyError
from autopeft.core.report import Notice
from autopeft.engine.dispatcher import PAUSE, Dispatcher
from autopeft.engine.engine import Engine, Watch, interrupts
from autopeft.engine.evaluator import MakeEvaluator
from autopeft.engine.ray_memory import Actors, Kill
from autopeft.engine.ray_worker import Change, open_board, worker_of
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

Result = TypeVar("Result")


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
        """Runs the study to its end.

        Raises:
            StudyError: no cluster answers, or none of its nodes has room; see also `Study.ask`.
            KeyboardInterrupt: Ctrl-C or SIGTERM, see `Engine.run`.
        """
        if not (study.n_left or study.queue_repeats()):
            return
        with self._cluster():
            workers = self._workers()
            dispatcher = Dispatcher(study, stopper, self.room, watch, workers)
            board_if_any = open_board() if self.room.members > 1 else nullcontext()
            with board_if_any as board, redirect_stdout(sys.stderr), interrupts() as asked:
                driver = _Driver(dispatcher, self._gpu_for, board, asked)
                worker = worker_of(make, board)
                while kill := self._run(driver, worker, workers):  # Ray writes of deaths
                    driver.lost_all(kill)
            if driver.error is not None:
                raise driver.error
            if asked.is_set():
                raise KeyboardInterrupt

    def _run(self, driver: _Driver, worker: type[tune.Trainable], workers: int) -> Kill | None:
        """Runs to the end, or until a worker is killed for memory."""
        actors = Actors()
        try:
            self._tuner(driver, worker, workers, actors).fit()
        except RuntimeError as error:
            if kill := Kill.told_by(error, actors):
                return kill
            raise
        return None

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
            raise self._no_answer() from error
        return True

    def _check_address(self) -> None:
        """Asks before Ray does, which waits for minutes."""
        if self.address and self.address.startswith("ray://"):
            reason = "is an address for clients; run on a machine of the cluster and give host:port"
            raise StudyError(f"{self.address!r} {reason}", "engine.address")
        if self.address is None or "://" in self.address or ":" not in self.address:
            return
        try:
            host, port = self.address.rsplit(":", 1)
            socket.create_connection((host, int(port)), timeout=10).close()
        except (OSError, ValueError, OverflowError) as error:
            raise self._no_answer() from error

    def _no_answer(self) -> StudyError:
        return StudyError(f"no Ray cluster answers at {self.address!r}", "engine.address")

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

    def _tuner(
        self, driver: _Driver, trainable: type[tune.Trainable], workers: int, actors: Actors
    ) -> tune.Tuner:
        cpu = self.cpu  # no more of the engine goes to the nodes
        for name in ("ray.tune", "ray.train", "ray.air"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        return tune.Tuner(
            tune.with_resources(
                trainable,
                lambda pack: tune.PlacementGroupFactory([{"CPU": cpu, "GPU": pack["gpu"]}]),
            ),
            tune_config=tune.TuneConfig(
                search_alg=driver,
                num_samples=-1,
                max_concurrent_trials=workers,
                reuse_actors=True,
                trial_name_creator=lambda trial: f"trial_{trial.trial_id}",
                trial_dirname_creator=lambda trial: f"trial_{trial.trial_id}",
            ),
            run_config=tune.RunConfig(
                name="ray",
                storage_path=str(Path(self.folder).resolve()),
                stop=driver,
                verbose=0,
                callbacks=[actors],
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            ),
        )


class _Driver(Searcher, tune.Stopper):
    """The dispatcher as Tune sees it: a searcher of packs, and a stopper that sees every result.

    A trial of Tune is a worker of the dispatcher. What goes wrong here ends the run.

    Args:
        dispatcher: of the study.
        gpu_for: devices of the worker that starts with some trials.
        board: where workers are told of changes; None for packs of one, which never change.
        asked: whether each worker is to end with its next result.

    Attributes:
        error: what the engine is to raise.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        gpu_for: Callable[[Sequence[Trial]], float],
        board: Any,
        asked: Event,
    ) -> None:
        super().__init__()
        self.dispatcher, self.gpu_for, self.board = dispatcher, gpu_for, board
        self.asked = asked
        self.error: BaseException | None = None
        self._look_again = 0.0

    def suggest(self, trial_id: str) -> Any:
        if not self.asked.is_set() and time.monotonic() >= self._look_again:
            trials: list[Trial] = self._go(lambda: self.dispatcher.refill(trial_id), [])
            if trials:
                change = pickle.dumps(Change(joining=tuple(trials)))
                return {"worker": trial_id, "change": change, "gpu": self.gpu_for(trials)}
            self._look_again = time.monotonic() + PAUSE
        is_over = self.error or self.asked.is_set() or self.dispatcher.is_over
        return Searcher.FINISHED if is_over else None

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Records what a worker reports; whether it has nothing to train any more."""
        self._look_again = 0.0
        self._go(lambda: self._record(trial_id, pickle.loads(result["events"])), None)
        ends = self.error is not None or self.asked.is_set()
        return ends or not self.dispatcher.pack(trial_id)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        self._look_again = 0.0
        self._go(lambda: self.dispatcher.lost(trial_id), None)

    def lost_all(self, kill: Kill) -> None:
        """Records that every worker is gone, one of them for memory."""
        self._look_again = 0.0
        self._go(lambda: self.dispatcher.killed(kill.worker, kill.total), None)
        self._go(self.dispatcher.lost_all, None)

    def stop_all(self) -> bool:
        return self.error is not None

    def _record(self, worker: str, events: Sequence[Notice]) -> None:
        """A change is on the board before the worker looks there."""
        leaving = self.dispatcher.record(worker, events)
        if self.board is None or self.asked.is_set():
            return
        joining = self.dispatcher.refill(worker)
        if (leaving or joining) and self.dispatcher.pack(worker):
            change = Change(tuple(leaving), tuple(joining))
            ray.get(self.board.put.remote(worker, change))

    def _go(self, act: Callable[[], Result], otherwise: Result) -> Result:
        """What an act gives, unless the run is at its end or ends with what the act raises."""
        if self.error is None:
            try:
                return act()
            except Exception as error:
                self.error = self.error or error
        return otherwise

    def save(self, checkpoint_path: str) -> None:
        """Keeps nothing; see `__getstate__`."""

    def restore(self, checkpoint_path: str) -> None:
        """Restores nothing; see `__getstate__`."""

    def __getstate__(self) -> dict[str, Any]:
        return {}  # a run continues from the study's record, not from files of its driver

    def __deepcopy__(self, memo: Any) -> _Driver:
        return self
