"""Runs the trials of a study on a Ray cluster; the only file that knows Ray."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import ray
from ray import tune
from ray.tune.search import Searcher

from autopeft.core.budget import Budget
from autopeft.core.config import PeftConfig
from autopeft.core.errors import StudyError
from autopeft.core.report import Report
from autopeft.engine.engine import Engine, Evaluator, MakeEvaluator, Watch, described, judge
from autopeft.search.stopping import Stopper
from autopeft.study.study import Study, Ticket

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

    Attributes:
        cpu: cores of one trial.
        gpu: devices of one trial; fractions share a device.
        concurrency: trials at a time; `auto` is as many as the cluster has room for.
        address: of a running cluster; None starts one on this machine.
        folder: for the files of Ray Tune.
    """

    cpu: float = 1
    gpu: float = 0
    concurrency: int | Literal["auto"] = "auto"
    address: str | None = None
    folder: str = "runs"

    def run(
        self, study: Study, make: MakeEvaluator, stopper: Stopper, watch: Watch = lambda _: None
    ) -> None:
        """Runs the study to its end."""
        if not study.n_left:
            return
        started = self._connect()
        try:
            driver = _Driver(study, stopper, watch)
            with redirect_stdout(sys.stderr), _interrupts(driver):  # Ray writes of dead workers
                self._tuner(driver, make).fit()
            if driver.error is not None:
                raise driver.error
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
                address=self.address,
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
        if self.address is None or "://" in self.address or ":" not in self.address:
            return
        host, port = self.address.rsplit(":", 1)
        try:
            socket.create_connection((host, int(port)), timeout=10).close()
        except (OSError, ValueError, OverflowError) as error:
            raise StudyError(
                f"no Ray cluster answers at {self.address!r}", "engine.address"
            ) from error

    def _slots(self) -> int:
        """How many trials run at a time."""
        if self.concurrency != "auto":
            return self.concurrency
        total = ray.cluster_resources()
        room = [total.get("CPU", 0) / self.cpu]
        if self.gpu:
            room.append(total.get("GPU", 0) / self.gpu)
        if min(room) < 1:
            raise StudyError(
                f"the cluster has no room for a trial with {self.cpu:g} CPU and {self.gpu:g} GPU",
                "engine.resources",
            )
        return int(min(room))

    def _tuner(self, driver: _Driver, make: MakeEvaluator) -> tune.Tuner:
        for name in ("ray.tune", "ray.train", "ray.air"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        return tune.Tuner(
            tune.with_resources(worker(make), {"cpu": self.cpu, "gpu": self.gpu}),
            tune_config=tune.TuneConfig(
                search_alg=_Proposals(driver),
                num_samples=-1,
                max_concurrent_trials=self._slots(),
                reuse_actors=True,
                trial_name_creator=lambda trial: f"trial_{trial.trial_id}",
                trial_dirname_creator=lambda trial: f"trial_{trial.trial_id}",
            ),
            run_config=tune.RunConfig(
                name="ray",
                storage_path=str(Path(self.folder).resolve()),
                stop=_Judgement(driver),
                verbose=0,
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            ),
        )


class _Driver:
    """The study on the driver's side, under the identities that Tune gives to trials.

    What goes wrong here ends the run: Tune is told to stop, and the engine raises the error.
    """

    def __init__(self, study: Study, stopper: Stopper, watch: Watch) -> None:
        self.study, self.stopper, self.watch = study, stopper, watch
        self.tickets: dict[str, Ticket] = {}
        self.error: BaseException | None = None

    def propose(self, identity: str) -> dict[str, str] | None:
        """The next trial as what the worker gets; None where there is none."""
        if self.error is not None:
            return None
        with self._kept():
            ticket = self.study.ask()
            if ticket is None:
                return None
            self.tickets[identity] = ticket
            self.watch(self.study)
            return {"ticket": _packed(ticket)}
        return None

    def judge(self, identity: str, result: Mapping[str, Any]) -> bool:
        """Records what a worker reports; whether its trial is to be stopped."""
        ticket = self.tickets.get(identity)
        if ticket is None or self.error is not None:
            return True
        if "report" not in result:
            return False
        with self._kept():
            return self._judge(identity, ticket, Report(**json.loads(result["report"])))
        return True

    def _judge(self, identity: str, ticket: Ticket, report: Report) -> bool:
        try:
            decision = judge(self.study, self.stopper, ticket, report)
        except Exception as error:
            self.study.fail(self.tickets.pop(identity), described(error))
            return True
        if not decision.goes_on:
            self.study.stop(self.tickets.pop(identity), decision.reason)
            self.watch(self.study)
        return not decision.goes_on

    def complete(self, identity: str, result: Mapping[str, Any] | None, died: bool) -> None:
        """Records the end of a trial that was not stopped."""
        ticket = self.tickets.pop(identity, None)
        if ticket is None or self.error is not None:
            return
        with self._kept():
            if died or result is None:
                self.study.fail(ticket, "the worker process died")
            elif result.get("error"):
                self.study.fail(ticket, str(result["error"]))
            else:
                self.study.finish(ticket)
            self.watch(self.study)

    @contextmanager
    def _kept(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self.error = self.error or error

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: the study's record is what a run continues from, not Tune's files."""
        return {}

    def __deepcopy__(self, memo: Any) -> _Driver:
        return self


@contextmanager
def _interrupts(driver: _Driver) -> Iterator[None]:
    """Lets the first Ctrl-C end the run between two events, not in the middle of Ray.

    A second one is what it always is. Only the main thread can listen.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: Any) -> None:
        driver.error = driver.error or KeyboardInterrupt()
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class _Proposals(Searcher):
    """The study as a searcher of Tune."""

    def __init__(self, driver: _Driver) -> None:
        super().__init__()
        self.driver = driver

    def suggest(self, trial_id: str) -> Any:
        return self.driver.propose(trial_id) or Searcher.FINISHED

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        self.driver.complete(trial_id, result, error)

    def save(self, checkpoint_path: str) -> None:
        """Keeps nothing; see `_Driver.__getstate__`."""

    def restore(self, checkpoint_path: str) -> None:
        """Restores nothing; see `_Driver.__getstate__`."""


class _Judgement(tune.Stopper):
    """The study's stopper as a stopper of Tune, which sees every result first."""

    def __init__(self, driver: _Driver) -> None:
        self.driver = driver

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return self.driver.judge(trial_id, result)

    def stop_all(self) -> bool:
        return self.driver.error is not None


def worker(make: MakeEvaluator) -> type[tune.Trainable]:
    """The actor that runs trials; its evaluator is built once.

    What builds it is unpacked there, so that what a node lacks is an error of the trial.
    """
    packed = ray.cloudpickle.dumps(make)

    class Worker(tune.Trainable):
        """Trains one configuration after another."""

        def setup(self, config: dict[str, Any]) -> None:
            self.evaluator: Evaluator | None = None
            self.reports = self._start(config)

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            self.cleanup()
            self.reports = self._start(new_config)
            return True

        def step(self) -> dict[str, Any]:
            try:
                report = next(self.reports)
            except Exception as error:
                return {"error": described(error), "done": True}
            done = report.fidelity >= self.budget.rungs[-1]
            return {"report": json.dumps(_document(report)), "done": done}

        def cleanup(self) -> None:
            self.reports.close()

        def _start(self, config: dict[str, Any]) -> Generator[Report, None, None]:
            order, self.budget = _unpacked(config["ticket"])
            return self._train(order)

        def _train(self, order: PeftConfig) -> Generator[Report, None, None]:
            if self.evaluator is None:
                self.evaluator = ray.cloudpickle.loads(packed)()
            yield from self.evaluator([order], self.budget)

    return Worker


def _packed(ticket: Ticket) -> str:
    return json.dumps({"config": ticket.config.to_dict(), "budget": asdict(ticket.budget)})


def _unpacked(text: str) -> tuple[PeftConfig, Budget]:
    document = json.loads(text)
    budget = document["budget"]
    rungs = tuple(budget.pop("rungs"))
    return PeftConfig.from_dict(document["config"]), Budget(rungs=rungs, **budget)


def _document(report: Report) -> dict[str, Any]:
    return {**asdict(report), "metrics": dict(report.metrics)}
